"""Fixtures of the virtualenv tests: bundles in a registry for a module, and an agent's backend in this very process for
a test; what it starts runs on this machine."""

import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from baremetal_agent.virtualenv.backend import VirtualenvBackend
from edge_agent.runtime.backend import BackendError, Handle, LogQuery, Observed
from edge_agent.runtime.model import Artifact, ArtifactKind, Check, CommandProbe, Workload
from tests.contract.machine import await_observed, has_ended, ignore, inside, launch
from tests.support.bundling import BundleShop, open_bundle_shop
from tests.support.virtualenv_machine import REPOSITORY
from tests.support.wheel_index import wheel

WHEELS = dict([wheel("answers", "1.0", code="ANSWER = 42\n")])
FILES = {"main.py": b"import answers\nprint('the answer is', answers.ANSWER)\n", "data/one.txt": b"1"}
POLITE = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"
NUMBERS = itertools.count(1)


@dataclass
class LocalMachine:
    """One agent's backend; `artifact` is prepared."""

    backend: VirtualenvBackend
    owner: str
    state: Path
    artifact: Artifact
    shop: BundleShop

    def workload(self, script: str = POLITE, **changes: Any) -> Workload:
        """A deployment of its own that runs `script` in a shell."""
        name = f"deployment-{next(NUMBERS)}"
        check = Check(CommandProbe(("true",)))
        made = Workload(name, 1, name, "alice", "demo", self.artifact, check, entrypoint=("sh", "-c", script))
        return replace(made, **changes)

    async def launch(self, workload: Workload) -> Handle:
        return await launch(self, workload)

    async def refusal(self, workload: Workload) -> BackendError:
        """What the start says, of which nothing is left."""
        await self.backend.prepare(workload, ignore)
        before = await self.backend.list()
        with pytest.raises(BackendError) as caught:
            await self.backend.start(workload)
        assert await self.backend.list() == before
        return caught.value

    async def inside(self, handle: Handle, script: str) -> str:
        return await inside(self, handle, script)

    async def status(self, handle: Handle) -> dict[str, str]:
        """/proc/PID/status of the workload's own process, as the device tells it."""
        lines = Path(f"/proc/{self.started(handle)['pid']}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    async def end_of(self, handle: Handle) -> Observed:
        return await await_observed(self.backend, handle, has_ended)

    async def lines(self, handle: Handle, **query: Any) -> list[str]:
        return [line.text async for line in self.backend.logs(handle, LogQuery(**query))]

    def folder(self, handle: Handle) -> Path:
        return self.state / "instances" / handle.value

    def started(self, handle: Handle) -> dict[str, Any]:
        return dict(json.loads((self.folder(handle) / "started").read_text()))

    def supervisor(self, handle: Handle) -> int:
        return int((self.folder(handle) / "lock").read_text())

    async def restart(self) -> None:
        """Another agent over the same folder; what runs runs on."""
        await self.backend.close()
        self.backend = backend_over(self.state, self.owner, self.shop)

    async def close(self) -> None:
        for seen in await self.backend.list():
            await self.backend.remove(seen.handle)
        await self.backend.prune(frozenset())
        await self.backend.close()
        with suppress(FileNotFoundError):
            Path(f"/run/longshore/secrets-{self.owner}").rmdir()


def backend_over(state: Path, owner: str, shop: BundleShop) -> VirtualenvBackend:
    async def credentials() -> tuple[str, str]:
        return shop.registry.device_credentials(owner)

    return VirtualenvBackend(owner, state, credentials, shop.registry.ca_file)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BundleShop]:
    async with open_bundle_shop(tmp_path_factory.mktemp("bundles"), WHEELS) as made:
        made.registry.pullable.add(REPOSITORY)
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def artifact(shop: BundleShop) -> Artifact:
    files = [await shop.upload(name, content) for name, content in FILES.items()]
    result = await shop.build(shop.job("b-common", {"packages": {"pypi": ["answers==1.0"]}}, files))
    assert result.artifact is not None, result
    return Artifact(result.artifact.repository, result.artifact.digest, "linux/amd64", ArtifactKind.BUNDLE)


@pytest_asyncio.fixture(loop_scope="module")
async def machine(shop: BundleShop, artifact: Artifact, tmp_path: Path) -> AsyncIterator[LocalMachine]:
    # As a service runs, into whose files nobody else may look.
    umask = os.umask(0o077)
    owner = f"test-{os.getpid()}-{next(NUMBERS)}"
    backend = backend_over(tmp_path / "state", owner, shop)
    made = LocalMachine(backend, owner, tmp_path / "state", artifact, shop)
    try:
        yield made
    finally:
        await made.close()
        os.umask(umask)
