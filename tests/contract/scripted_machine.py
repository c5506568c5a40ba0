"""The contract's `Machine` with real parts, whose programs are scripts of a shell."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edge_agent.runtime.backend import Handle
from edge_agent.runtime.model import Artifact, Port, Workload
from tests.contract.machine import Command, Program
from tests.contract.shell_commands import lasting, shell_command
from tests.support.device_machine import DeviceMachine, SiteT

POLITE = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"
SCRIPTS = {
    Program.POLITE: POLITE,
    Program.STUBBORN: "trap '' TERM; echo ready; while :; do sleep 1000; done",
    Program.FAILS: "exit 3",
    Program.FAILS_SOON: "sleep 0.5; exit 7",
    Program.WRITES: f"for n in 1 2 3 4 5; do echo line $n; done; {POLITE}",
    Program.NO_COMMAND: "",
    Program.WORKS: "trap 'exit 0' TERM; while :; do n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; sleep 0.1; done",
}
# Seconds, by which the commands of one machine that last are known.
MARKS = itertools.count(90_001)


@dataclass(frozen=True)
class Artifacts:
    """`foreign` is for another architecture."""

    common: Artifact
    foreign: Artifact


class ScriptedMachine(DeviceMachine[SiteT]):
    """`SCRIPTS` and the backend's own script of a program that serves, which listens at `inner_port`, or at the port of
    the device where that is None."""

    inner_port: int | None = None
    serving: str

    def __init__(self, site: SiteT, owner: str, artifacts: Artifacts) -> None:
        super().__init__(site, owner)
        self._mark = next(MARKS)
        self._artifacts = artifacts
        self._scripts: Mapping[Program, str] = {**SCRIPTS, Program.SERVES: self.serving}

    def workload(self, program: Program, *, host_port: int | None = None, revision: int = 1) -> Workload:
        ports = () if host_port is None else (Port("http", self.inner_port or host_port or 8080, host_port),)
        script = self._scripts[program]
        made = replace(self.site.workload(self._artifacts.common, script, ports=ports), revision=revision)
        return replace(made, entrypoint=("nonesuch",)) if program is Program.NO_COMMAND else made

    def command(self, command: Command) -> Sequence[str]:
        return shell_command(command, self._mark)

    async def lasting(self, handle: Handle) -> int:
        return await lasting(self.site.device, self._mark)

    def missing(self) -> Workload:
        digest = "sha256:" + hashlib.sha256(b"nowhere").hexdigest()
        return self.site.workload(replace(self._artifacts.common, digest=digest), POLITE)

    def unreachable(self) -> Workload:
        nobody = replace(
            self._artifacts.common, repository=f"{self.site.device.gateway}:1/x", digest="sha256:" + "1" * 64
        )
        return self.site.workload(nobody, POLITE)

    def foreign(self) -> Workload:
        return self.site.workload(self._artifacts.foreign, POLITE)
