"""A site whose agent is to die: what is really on its device, looked at without asking the agent."""

import asyncio
import json
import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baremetal_agent.virtualenv.starting import MARKER
from longshore.v1 import deployment_pb2
from tests.support.broker_observer import BrokerObserver, onlooker
from tests.support.site import PROJECT, Site, fetch, running_site, spec_text, status_of

SECRET = b"of the service alone"


@dataclass(frozen=True)
class Found:
    """What a device has. `running` and `there` are the deployments of its instances, `keepers` how many processes stay
    with instances, `secrets` how many folders of secrets there are, `strays` what belongs to no instance."""

    running: tuple[str, ...]
    there: tuple[str, ...]
    keepers: int
    secrets: int
    strays: tuple[str, ...] = ()


def wanted(deployments: Iterable[str]) -> Found:
    """One instance of each, and nothing else."""
    each = tuple(sorted(deployments))
    return Found(each, each, len(each), len(each))


@dataclass
class FaultSite(ABC):
    """`observer` has seen all that the device published."""

    site: Site
    observer: BrokerObserver

    program = ""
    artifact = ""

    def spec(self, name: str, **choices: Any) -> str:
        """As `spec_text`, with a secret, for this kind of device."""
        text = spec_text(name, artifact=self.artifact, **choices)
        return text.replace("deploy:\n", "deploy:\n  secrets:\n  - name: token\n")

    async def deploy(self, text: str, build_id: str = "") -> deployment_pb2.Deployment:
        return await self.site.deploy(text, build_id=build_id, secrets={"token": SECRET})

    @abstractmethod
    async def found(self) -> Found: ...

    @abstractmethod
    async def kill_instance(self, deployment: deployment_pb2.Deployment) -> None:
        """It dies, as if by itself."""

    async def converges(
        self, deployment: deployment_pb2.Deployment, answer: str, state: str = "READY", reason: str = ""
    ) -> None:
        """The deployment gets there, and answers this."""
        end = time.monotonic() + 120
        while await _answer(found := await self.site.reaches(deployment, state, reason, seconds=120)) != answer:
            assert time.monotonic() < end, f"it is {found}\n{self.site.logs()}"
            await asyncio.sleep(0.1)

    async def holds_only(self, deployments: Collection[str], *, tidied: bool = False, seconds: float = 90) -> None:
        """On the device is one instance of each of these deployments and no other. `tidied`: nor anything that does
        not belong to them, as it is once the agent has had time for that."""
        goal, end = wanted(deployments), time.monotonic() + seconds
        while True:
            found = await self.found()
            if found == goal or (not tidied and (found.running, found.there) == (goal.running, goal.there)):
                return
            assert time.monotonic() < end, f"{found} instead of {goal}\n{self.site.logs()}"
            await asyncio.sleep(0.1)

    async def journal_is_whole(self) -> None:
        """The broker has got each number of the device's journal, always with the same content; the controller has
        missed none; and each event of the project is there once, in order."""
        by_number: dict[int, bytes] = {}
        journals = set()
        for entry in self.observer.entries():
            journals.add(entry.journal_id)
            content = entry.SerializeToString(deterministic=True)
            assert by_number.setdefault(entry.number, content) == content, f"entry {entry.number} has changed"
        assert len(journals) == 1, f"the journal was begun anew: {journals}"
        assert sorted(by_number) == list(range(1, len(by_number) + 1))
        assert "journal has a gap" not in (self.site.folder / "controller" / "controller.log").read_text()
        numbers = [e.number for e in await self.site.call(lambda: list(self.site.client.watch_events(PROJECT)))]
        assert numbers == list(range(1, len(numbers) + 1))


async def _answer(found: deployment_pb2.GetDeploymentResponse) -> str:
    """As `fetch`; empty too while the instance is told to be nowhere."""
    return await fetch(found) if status_of(found).endpoints else ""


class ContainerSite(FaultSite):
    program = "edge_agent.main"
    artifact = "image"

    async def found(self) -> Found:
        script = """
        podman ps -a --format json
        echo
        pgrep -x conmon | sed 's/.*/keeper/'
        ls -d /run/longshore/secrets-*/* 2>/dev/null | sed 's/.*/secret/'
        """
        said = (await self.site.device.run("sh", "-c", script)).lstrip()
        containers, end = json.JSONDecoder().raw_decode(said)
        counted = Counter(said[end:].split())
        instances = [(one["State"], one["Labels"]["dev.longshore.deployment"]) for one in containers]
        return Found(
            tuple(sorted(name for state, name in instances if state == "running")),
            tuple(sorted(name for _, name in instances)),
            counted["keeper"],
            counted["secret"],
        )

    async def kill_instance(self, deployment: deployment_pb2.Deployment) -> None:
        label = f"label=dev.longshore.deployment={deployment.id}"
        ids = (await self.site.device.run("podman", "ps", "-q", "--filter", label)).split()
        await self.site.device.run("podman", "kill", *ids)


class BundleSite(FaultSite):
    program = "baremetal_agent.main"
    artifact = "bundle"

    @property
    def instances(self) -> Path:
        return self.site.folder / "agent" / "virtualenv" / "instances"

    async def found(self) -> Found:
        deployments, strays = {}, []
        for folder in self.instances.iterdir() if self.instances.is_dir() else ():
            try:
                deployments[folder.name] = str(json.loads((folder / "instance.json").read_text())["deployment_id"])
            except (FileNotFoundError, NotADirectoryError):
                strays.append(str(folder))
        living = Counter(instance for _, instance in self._processes())
        supervisors = [where for where in _words_of_all("cmdline") if str(self.instances).encode() in where]
        strays += [f"process of {instance}" for instance in living if instance not in deployments]
        secrets = await self.site.device.run("sh", "-c", "ls -d /run/longshore/secrets-*/* 2>/dev/null || true")
        return Found(
            tuple(sorted(deployments[instance] for instance in living if instance in deployments)),
            tuple(sorted(deployments.values())),
            len(supervisors),
            len(secrets.split()),
            tuple(strays),
        )

    async def kill_instance(self, deployment: deployment_pb2.Deployment) -> None:
        for pid, instance in self._processes():
            found = json.loads((self.instances / instance / "instance.json").read_text())
            if found["deployment_id"] == deployment.id:
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Processes of instances of this device, and the instance of each."""
        here = Path(f"/proc/{self.site.device.first_process}/ns/net").stat().st_ino
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                for word in (process / "environ").read_bytes().split(b"\0"):
                    name, _, value = word.partition(b"=")
                    if name == MARKER.encode() and (process / "ns/net").stat().st_ino == here:
                        yield int(process.name), value.decode()


def _words_of_all(name: str) -> Iterator[bytes]:
    for path in Path("/proc").glob(f"[0-9]*/{name}"):
        with suppress(OSError):
            yield path.read_bytes()


KINDS: dict[str, type[FaultSite]] = {"podman": ContainerSite, "virtualenv": BundleSite}


@asynccontextmanager
async def fault_site(folder: Path, backend: str) -> AsyncIterator[FaultSite]:
    kind = KINDS[backend]
    async with running_site(folder, program=kind.program, artifact=kind.artifact) as site:
        with onlooker(site.stack) as observer:
            yield kind(site, observer)
