"""What tells one agent from another: the two share all else, their commands too."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.host.findings import Finding
from edge_agent.host.unit import AgentKind
from edge_agent.runtime.backend import DeployBackend
from edge_agent.runtime.identity import Identity
from edge_agent.runtime.settings import AgentSettings, Option

# Gives user and password for the registry.
Credentials = Callable[[], Awaitable[tuple[str, str]]]


@dataclass(frozen=True)
class Program:
    """`runs_with` ends the sentence that describes it; `artifacts` are what it fetches, in the plural."""

    kind: AgentKind
    runs_with: str
    artifacts: str
    # Makes the backend; imports what that needs, which most commands do not.
    backend: Callable[[AgentSettings, Identity, Credentials], DeployBackend]
    # What a doctor looks at besides what all agents need; given a folder to work in.
    examine: Callable[[Path], Awaitable[list[Finding]]]
    # Settings that only this one has; each is a flag of `run`, too.
    options: Sequence[Option] = ()

    @property
    def name(self) -> str:
        return self.kind.program

    @property
    def state_dir(self) -> Path:
        return self.kind.state_dir
