"""dpkg's record of what is installed, for packages that dpkg did not install itself. deb-control(5), deb-triggers(5)"""

import hashlib
import re
import tarfile
from collections.abc import Collection, Sequence
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


def status(packages: Sequence[Package], unpacked: Collection[str] = ()) -> str:
    """Paragraphs for dpkg's `status`, by name. `unpacked` are stems of those whose scripts have still to run."""
    ordered = sorted(packages, key=lambda package: (package.name, package.field("Architecture")))
    return "".join(f"{_paragraph(package, package.stem in unpacked)}\n\n" for package in ordered)


def conffiles(package: Package) -> list[str]:
    """Paths of those that are in the package."""
    shipped = {path for path, node in package.files if node.kind == tarfile.REGTYPE}
    return [path for line in package.text("conffiles").split("\n") if (path := line.strip()) in shipped]


def write_triggers(tree: Tree, packages: Sequence[Package]) -> None:
    """Who is told when a package with certain files or events is installed later."""
    files: list[str] = []
    named: dict[str, list[str]] = {}
    for package in sorted(packages, key=lambda package: package.stem):
        for trigger, awaited in interests(package):
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


def _paragraph(package: Package, unpacked: bool) -> str:
    lines = package.control.splitlines()
    result = [*lines[:1], f"Status: install ok {'unpacked' if unpacked else 'installed'}", *lines[1:]]
    if listed := _conffile_lines(package, unpacked):
        position = next((number for number, line in enumerate(result) if line.startswith("Description:")), len(result))
        result[position:position] = ["Conffiles:", *listed]
    return "\n".join(result)


def _conffile_lines(package: Package, unpacked: bool) -> list[str]:
    nodes: dict[str, Node] = dict(package.files)
    if unpacked:
        return [f" {path} newconffile" for path in conffiles(package)]
    # The format's own digest, not a protection.
    digests = {path: hashlib.md5(nodes[path].read(), usedforsecurity=False) for path in conffiles(package)}
    return [f" {path} {digest.hexdigest()}" for path, digest in digests.items()]


def interests(package: Package) -> list[tuple[str, bool]]:
    """Triggers that the package waits for; whether the other package's installation waits for it."""
    found = re.findall(r"^[ \t]*(interest(?:-await|-noawait)?)[ \t]+(\S+)", package.text("triggers"), re.MULTILINE)
    return [(trigger, directive != "interest-noawait") for directive, trigger in found]


def activated(package: Package) -> list[str]:
    """Triggers by name that the package's installation pulls."""
    return re.findall(r"^[ \t]*activate(?:-await|-noawait)?[ \t]+(\S+)", package.text("triggers"), re.MULTILINE)
