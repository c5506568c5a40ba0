"""Which Python of this device an environment is made with."""

import shutil
import sys
from pathlib import Path

from baremetal_agent.virtualenv.commands import run
from edge_agent.runtime.backend import BackendError

# Before what else a PATH may have: there everybody may read it.
FOLDERS = ("/usr/bin", "/usr/local/bin")
ASK = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"


async def find_python(reference: str, version: str) -> Path:
    """The program of this version ("3.11"; empty: any). Raises BackendError "PythonMissing", retryable, since somebody
    may install it."""
    name = f"python{version or '3'}"
    for candidate in (*(f"{folder}/{name}" for folder in FOLDERS), shutil.which(name) or "", sys.executable):
        if found := await _ask(candidate, version):
            return found
    message = f"{reference} needs Python {version or 3}, which this device lacks; apt-get install {name}"
    raise BackendError("PythonMissing", message, retryable=True)


async def _ask(candidate: str, version: str) -> Path | None:
    """The program itself, which a candidate may only lead to."""
    if not candidate or not Path(candidate).exists():
        return None
    asked = await run(candidate, "-I", "-S", "-c", ASK)
    told, _, program = asked.output.strip().partition(" ")
    fits = asked.code == 0 and version in ("", told)
    return Path(program).resolve() if fits and program else None
