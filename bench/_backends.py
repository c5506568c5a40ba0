"""The two backends, each with a site of its own to be measured on."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.fault_site import KINDS
from tests.support.site import Site, running_site, spec_text

BYTE_CODE = Path(__file__).parents[1] / ".tools" / "byte-code"
# What the agents' units set (edge_agent/host/unit.py).
AS_SERVICE = {"PYTHONOPTIMIZE": "2"}


@dataclass(frozen=True)
class Backend:
    """`program` is the module of its agent, `artifact` what it runs."""

    name: str
    program: str
    artifact: str

    def spec(self, name: str) -> str:
        """A deployment.yml of the service of the tests."""
        return spec_text(name, artifact=self.artifact)

    @asynccontextmanager
    async def site(self) -> AsyncIterator[Site]:
        """A controller, a registry with the service in it, and a device whose agent runs; nothing of it is left."""
        with tempfile.TemporaryDirectory(prefix="longshore-bench-") as folder, _compiled():
            async with running_site(Path(folder), program=self.program, artifact=self.artifact) as site:
                # The first start has compiled what an installed agent finds compiled.
                for _ in range(2):
                    await site.stop_agent()
                    await site.start_agent(AS_SERVICE)
                yield site


@contextmanager
def _compiled() -> Iterator[None]:
    """What is started within the block keeps what it compiles of Python, whatever this process does."""
    before = dict(os.environ)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(BYTE_CODE)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


BACKENDS = tuple(Backend(name, kind.program, kind.artifact) for name, kind in KINDS.items())
