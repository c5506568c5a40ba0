"""Build contexts for people: whoever asks for many of them takes nothing from builds and from others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controller.builds.contexts import PARALLEL, Contexts
from controller.builds.model import BuildFailed, TargetJob
from controller.errors import ResourceExhausted
from controller.spec.model import BuildSpec
from tests.support.async_waiting import until


def job(user: str, number: int = 0, timeout: str = "1h") -> TargetJob:
    spec = BuildSpec.model_validate({"timeout": timeout})
    return TargetJob(f"b{number}", user, "vision", "digits", "x86-cpu", spec, "registry:5000/alice/digits")


class Maker:
    """Folders are done when `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.making: list[str] = []
        self.made = 0
        self.busiest = 0
        self.removed = 0

    @asynccontextmanager
    async def make(self, job: TargetJob) -> AsyncIterator[Path]:
        self.making.append(job.user_id)
        self.busiest = max(self.busiest, len(self.making))
        try:
            await self.go.wait()
        finally:
            self.making.remove(job.user_id)
        self.made += 1
        try:
            yield Path(job.build_id)
        finally:
            self.removed += 1


@pytest.fixture
def maker() -> Maker:
    return Maker()


async def read(contexts: Contexts, one: TargetJob) -> Path:
    async with contexts.folder(one) as folder:
        return folder


async def test_a_user_who_asks_for_many_gets_them_one_after_another_and_others_theirs_meanwhile(maker: Maker) -> None:
    contexts = Contexts(maker.make, lambda: "")
    many = [asyncio.create_task(read(contexts, job("alice", number))) for number in range(20)]
    await until(lambda: maker.making == ["alice"])
    others = [asyncio.create_task(read(contexts, job(user))) for user in ("bob", "carol")]
    await until(lambda: maker.making == ["alice", "bob"])
    maker.go.set()
    assert await asyncio.gather(*many) == [Path(f"b{number}") for number in range(20)]
    await asyncio.gather(*others)
    assert (maker.made, maker.removed) == (22, 22)
    assert maker.busiest <= PARALLEL


async def test_who_reads_slowly_is_in_nobodys_way(maker: Maker) -> None:
    maker.go.set()
    contexts = Contexts(maker.make, lambda: "")
    async with contexts.folder(job("alice")), contexts.folder(job("bob")), contexts.folder(job("carol")):
        again = asyncio.create_task(read(contexts, job("alice", 1)))
        await read(contexts, job("dave"))
        assert not again.done()
    assert await again == Path("b1")


async def test_what_takes_longer_than_the_build_may_is_given_up(maker: Maker) -> None:
    contexts = Contexts(maker.make, lambda: "")
    with pytest.raises(BuildFailed, match="not made within 1 s"):
        await read(contexts, job("alice", timeout="1s"))
    maker.go.set()
    await read(contexts, job("alice"))


async def test_none_is_made_while_the_disk_is_nearly_full(maker: Maker) -> None:
    full = ["the disk is nearly full"]
    contexts = Contexts(maker.make, lambda: full[0])
    with pytest.raises(ResourceExhausted, match="nearly full"):
        await read(contexts, job("alice"))
    assert maker.made == 0
    full[0] = ""
    maker.go.set()
    await read(contexts, job("alice"))
