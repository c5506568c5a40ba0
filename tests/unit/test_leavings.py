"""What builds leave is removed while no build runs, and no build begins meanwhile."""

import asyncio
from typing import Any, cast

from controller.builds.leavings import Leavings
from controller.builds.podman import Podman
from tests.support.async_waiting import until


class RecordingPodman:
    def __init__(self, done: list[str]) -> None:
        self._done = done

    async def run(self, *args: str) -> None:
        self._done.append(" ".join(args))


async def test_a_build_that_begins_while_leavings_are_removed_waits_for_the_end_of_it() -> None:
    done: list[str] = []
    go = asyncio.Event()

    async def remove() -> None:
        done.append("removing")
        await go.wait()

    leavings, podman = Leavings(), cast(Podman, cast(Any, RecordingPodman(done)))
    await leavings.begin()
    leavings.killed()
    leavings.unwanted(["one"])
    ending = asyncio.create_task(leavings.end(podman, remove))
    await until(lambda: done == ["removing"], seconds=30)

    async def build() -> None:
        await leavings.begin()
        done.append("building")

    beginning = asyncio.create_task(build())
    # All that could run meanwhile has had its turn.
    for _ in range(10):
        await asyncio.sleep(0)
    assert done == ["removing"]
    go.set()
    await asyncio.gather(ending, beginning)
    assert done == ["removing", "rmi --no-prune one", "building"]
    assert leavings.building


async def test_a_build_that_is_cancelled_before_it_could_begin_does_not_count() -> None:
    go = asyncio.Event()
    leavings, podman = Leavings(), cast(Podman, cast(Any, RecordingPodman([])))

    async def remove() -> None:
        await go.wait()

    await leavings.begin()
    leavings.killed()
    ending = asyncio.create_task(leavings.end(podman, remove))
    await asyncio.sleep(0)
    beginning = asyncio.create_task(leavings.begin())
    await asyncio.sleep(0)
    beginning.cancel()
    await asyncio.wait([beginning])
    go.set()
    await ending
    assert beginning.cancelled()
    assert not leavings.building
