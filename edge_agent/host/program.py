"""What tells one agent from another: the two share all else, their commands too."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.host.findings import Finding
from edge_agent.host.unit import AgentKind
from edge_agent.runtime.backend import DeployBackend
from edge_agent.runtime.identity import Identity
from edge_agent.runtime.settings import AgentSettings

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
    # Flags of `run` that only this one has, as argparse takes them; each is a setting.
    flags: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.kind.program

    @property
    def state_dir(self) -> Path:
        return self.kind.state_dir
