"""A minimal Debian system from its packages: essential ones, apt, and what was asked for."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from controller.builds.cancelling import in_thread
from controller.builds.debian.apt import PrivateApt, debian_architecture
from controller.builds.debian.archive import Package, read_package
from controller.builds.debian.configure import DIVERSIONS, configure
from controller.builds.debian.database import add_records, status, write_triggers
from controller.builds.debian.tree import Tree
from controller.builds.model import OnLine

# The packages that the ways of a tree's making need, besides those that are asked for. Perl's scripts that turn an old
# system into one with merged /usr are not needed in one that is made so.
ALWAYS = ("?essential", "apt", "usrmerge-")
KEYRINGS = (Path("/usr/share/keyrings/debian-archive-keyring.gpg"),)
TRUSTED = Path("/etc/apt/trusted.gpg.d")
# Documentation and translations, which the slim images of registries lack too; licences stay.
LEFT_OUT = ("doc", "man", "locale", "info", "lintian", "bash-completion", "doc-base", "linda", "groff")


class KeysMissing(Exception):
    """Nothing on this machine says which packages are Debian's."""


async def make_system(apt: PrivateApt, sources: str, include: Sequence[str], target: Path, on_line: OnLine) -> None:
    """Writes the tree of a system with these sources to `target`, as tar. Raises AptFailed, KeysMissing."""
    await in_thread(_prepare, apt, sources)
    await apt.update(on_line)
    archives = await apt.download([*ALWAYS, *include], on_line)
    await in_thread(_write, archives, debian_architecture(apt.architecture), sources, target)


def sources_list(suite: str, mirror: str) -> str:
    """Of the distribution's own servers, with security updates; or of the mirror alone."""
    if mirror:
        return f"deb {mirror} {suite} main\n"
    return (
        f"deb http://deb.debian.org/debian {suite} main\n"
        f"deb http://deb.debian.org/debian {suite}-updates main\n"
        f"deb http://security.debian.org/debian-security {suite}-security main\n"
    )


def is_wanted(path: str) -> bool:
    """Whether a packaged file comes into the tree."""
    if path.startswith("/usr/share/doc/"):
        return path.endswith("/copyright")
    return not any(path.startswith(f"/usr/share/{name}/") for name in LEFT_OUT)


def build_tree(packages: Sequence[Package], architecture: str, sources: str) -> Tree:
    tree = Tree()
    tree.folder("/")
    tree.merge_usr({path.split("/", 2)[1] for package in packages for path, _ in package.files})
    for package in packages:
        for path, node in package.files:
            if is_wanted(path) and not _is_alias(path):
                tree.add(path, node)
    configure(tree, packages, architecture)
    add_records(tree, packages)
    write_triggers(tree, packages)
    tree.write("/var/lib/dpkg/status", status(packages))
    tree.write("/var/lib/dpkg/arch", f"{architecture}\n")
    tree.write("/var/lib/dpkg/diversions", DIVERSIONS)
    tree.write("/etc/apt/sources.list", sources)
    # Later packages leave out the same.
    tree.write("/etc/dpkg/dpkg.cfg.d/excludes", "".join(_excludes()))
    return tree


def _prepare(apt: PrivateApt, sources: str) -> None:
    apt.prepare()
    keys = [*(path for path in KEYRINGS if path.exists()), *sorted(TRUSTED.glob("*.*"))]
    if not keys:
        raise KeysMissing("there are no keys of Debian's archive; install debian-archive-keyring")
    for path in keys:
        shutil.copyfile(path, apt.folder / "etc/apt/trusted.gpg.d" / path.name)
    (apt.folder / "etc/apt/sources.list").write_text(sources, encoding="utf-8")


def _write(archives: Iterable[Path], architecture: str, sources: str, target: Path) -> None:
    build_tree([read_package(path) for path in archives], architecture, sources).write_tar(target)


def _is_alias(path: str) -> bool:
    """A folder that is a link where /usr is merged, or that is one in Debian."""
    return path in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libo32", "/libx32", "/var/run", "/var/lock")


def _excludes() -> list[str]:
    lines = [f"path-exclude=/usr/share/{name}/*\n" for name in LEFT_OUT]
    return [*lines, "path-include=/usr/share/doc/*/copyright\n"]
