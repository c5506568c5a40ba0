"""Byte code for Python packages that are laid out outside of their image."""

from collections.abc import Mapping
from pathlib import Path

from controller.builds import processes


async def compile_packages(program: str, packages: Path, root: Path, environment: Mapping[str, str]) -> None:
    """Afterwards the modules below `packages` have byte code, the same each time, that names their files as if `root`
    were `/`. `program` is a Python of the version that will run them. Nothing of the packages is imported."""
    # Before 3.11 Python writes sets in the order of their hashes. With -I it would take no variable, but look for no
    # modules in the current folder either: so that is one in which nobody puts any.
    fixed = ["env", "-C", "/", "PYTHONHASHSEED=0"]
    argv = [
        *fixed, program, "-s", "-m", "compileall", "-qq", "-j2", "--invalidation-mode", "unchecked-hash",
        "-s", str(root), "-p", "/", str(packages),
    ]  # fmt: skip
    # A file that is no Python at all, such as a template, is none of its business: its status says nothing.
    await processes.run(argv, environment)


async def find_python(uv: Path, minor: str, environment: Mapping[str, str]) -> str:
    """A Python of this machine of the version, such as "3.11", whose byte code all of it take; "" without one."""
    asked = await processes.run([str(uv), "python", "find", "--no-config", "--system", minor], environment)
    return asked.stdout.splitlines()[0] if asked.returncode == 0 and asked.stdout else ""
