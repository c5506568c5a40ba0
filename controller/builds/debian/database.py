"""dpkg's record of what is installed, for packages that dpkg did not install itself. deb-control(5), deb-triggers(5)"""

import hashlib
import re
import tarfile
from collections.abc import Sequence
from dataclasses import replace

from controller.builds.debian.archive import Package
from controller.builds.debian.tree import Node, Tree

INFO = "/var/lib/dpkg/info"
TRIGGERS = "/var/lib/dpkg/triggers"


def add_records(tree: Tree, packages: Sequence[Package]) -> None:
    """Adds each package's files in dpkg's `info` folder."""
    tree.write(f"{INFO}/format", "1\n")
    for package in packages:
        tree.write(f"{INFO}/{package.stem}.list", "".join(f"{_listed(path)}\n" for path, _ in package.files))
        for name, node in package.members.items():
            tree.add(f"{INFO}/{package.stem}.{name}", replace(node, uid=0, gid=0))


def status(packages: Sequence[Package]) -> str:
    """Paragraphs for dpkg's `status`, by name."""
    ordered = sorted(packages, key=lambda package: (package.name, package.field("Architecture")))
    return "".join(f"{_paragraph(package)}\n\n" for package in ordered)


def write_triggers(tree: Tree, packages: Sequence[Package]) -> None:
    """Who is told when a package with certain files or events is installed later."""
    files: list[str] = []
    named: dict[str, list[str]] = {}
    for package in sorted(packages, key=lambda package: package.stem):
        for trigger, awaited in _interests(package):
            who = package.stem + ("" if awaited else "/noawait")
            if trigger.startswith("/"):
                files.append(f"{trigger} {who}")
            else:
                named.setdefault(trigger, []).append(who)
    tree.write(f"{TRIGGERS}/File", "".join(f"{line}\n" for line in files))
    tree.write(f"{TRIGGERS}/Unincorp", "")
    for trigger, interested in named.items():
        tree.write(f"{TRIGGERS}/{trigger}", "".join(f"{who}\n" for who in interested))


def _listed(path: str) -> str:
    return "/." if path == "/" else path


def _paragraph(package: Package) -> str:
    lines = package.control.splitlines()
    result = [*lines[:1], "Status: install ok installed", *lines[1:]]
    if conffiles := _conffiles(package):
        position = next((number for number, line in enumerate(result) if line.startswith("Description:")), len(result))
        result[position:position] = ["Conffiles:", *conffiles]
    return "\n".join(result)


def _conffiles(package: Package) -> list[str]:
    nodes: dict[str, Node] = dict(package.files)
    found = []
    for path in package.text("conffiles").split("\n"):
        node = nodes.get(path.strip())
        if node is not None and node.kind == tarfile.REGTYPE:
            # The format's own digest, not a protection.
            found.append(f" {path.strip()} {hashlib.md5(node.read(), usedforsecurity=False).hexdigest()}")
    return found


def _interests(package: Package) -> list[tuple[str, bool]]:
    found = re.findall(r"^[ \t]*(interest(?:-await|-noawait)?)[ \t]+(\S+)", package.text("triggers"), re.MULTILINE)
    return [(trigger, directive != "interest-noawait") for directive, trigger in found]
