"""The account that the service runs as, and its folders: what the step in `templates/parts/user.j2` would make."""

import posixpath
import tarfile
from pathlib import Path

from controller.builds.debian.tree import Node, write_tar
from controller.builds.model import TargetJob
from controller.builds.prepare_base import BaseFiles

USER, GROUP = "app:x:1000:1000::/home/app:/bin/sh", "app:x:1000:"
LENDING_ROOT = [
    f"{folder}/{name}" for folder in ("/bin", "/usr/bin", "/usr/local/bin") for name in ("sudo", "sudoedit", "doas")
]


def needs_removal(base: BaseFiles, job: TargetJob) -> bool:
    """Whether the base has programs that lend root's rights: an archive cannot take a file away."""
    return not job.spec.allow_root and any(base.is_there(path) for path in LENDING_ROOT)


def write_root(base: BaseFiles, job: TargetJob, target: Path) -> None:
    """The archive has nothing that the base has already, but for the lists of accounts. Blocks."""
    owner = 0 if job.spec.allow_root else 1000
    entries = _accounts(base)
    for folder in (job.spec.workdir, *sorted(set(job.spec.volumes))):
        _add_folder(base, entries, folder, owner)
    write_tar(target, sorted(entries.items()))


def _accounts(base: BaseFiles) -> dict[str, Node]:
    users, groups = (
        base.texts.get(f"/etc/{name}", b"").decode(errors="surrogateescape") for name in ("passwd", "group")
    )
    entries: dict[str, Node] = {}
    if not any(line.split(":")[2:3] == ["1000"] for line in users.splitlines()):
        users, groups = _with_line(users, USER), _with_line(groups, GROUP)
        _add_folder(base, entries, "/home/app", 1000)
    for path, text in (("/etc/passwd", users), ("/etc/group", groups)):
        content = text.encode(errors="surrogateescape")
        entries[base.real(path)] = Node(content=content, size=len(content))
    return entries


def _add_folder(base: BaseFiles, entries: dict[str, Node], path: str, owner: int) -> None:
    """As `mkdir -p` and `chown` do it: those above belong to root."""
    real = base.real(path)
    if base.is_folder(real) or real in entries:
        return
    above = posixpath.dirname(real)
    if above != "/":
        _add_folder(base, entries, above, 0)
    entries[real] = Node(kind=tarfile.DIRTYPE, mode=0o755, uid=owner, gid=owner)


def _with_line(text: str, line: str) -> str:
    return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{line}\n"
