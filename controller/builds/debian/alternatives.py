"""Debian's alternatives (`awk` is `mawk`), as update-alternatives records and links them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from controller.builds.debian.tree import Tree

INSTALL = re.compile(
    r"update-alternatives\s+(?:--quiet\s+)?--install\s+(\S+)\s+(\S+)\s+(\S+)\s+(\d+)((?:\s+--slave\s+\S+\s+\S+\s+\S+)*)"
)
FOLLOWER = re.compile(r"--slave\s+(\S+)\s+(\S+)\s+(\S+)")


@dataclass(frozen=True)
class Choice:
    """One program that may stand behind a name. `followers`: (link, name, path) of what changes with it."""

    link: str
    name: str
    path: str
    priority: int
    followers: tuple[tuple[str, str, str], ...] = ()


def choices_in(script: str) -> list[Choice]:
    """What a maintainer script asks for in plain words; what depends on variables is not seen."""
    joined = script.replace("\\\n", " ")
    found = []
    for link, name, path, priority, rest in INSTALL.findall(joined):
        choice = Choice(link, name, path, int(priority), tuple(FOLLOWER.findall(rest)))
        if "$" not in f"{link}{name}{path}{rest}":
            found.append(choice)
    return found


def install(tree: Tree, choices: Iterable[Choice]) -> None:
    """The links, and the record by which update-alternatives goes on later. A choice that is not there is left out."""
    groups: dict[str, list[Choice]] = {}
    for choice in choices:
        if choice.path in tree:
            groups.setdefault(choice.name, []).append(choice)
    for name, group in groups.items():
        best = max(group, key=lambda choice: choice.priority)
        tree.write(f"/var/lib/dpkg/alternatives/{name}", _record(group))
        for link, alternative, path in ((best.link, name, best.path), *best.followers):
            if path in tree:
                tree.symlink(f"/etc/alternatives/{alternative}", path)
                tree.symlink(link, f"/etc/alternatives/{alternative}")


def _record(group: list[Choice]) -> str:
    followers = {name: link for choice in group for link, name, _ in choice.followers}
    lines = ["auto", group[0].link]
    for name in sorted(followers):
        lines += [name, followers[name]]
    lines.append("")
    for choice in sorted(group, key=lambda choice: choice.path):
        paths = {name: path for _, name, path in choice.followers}
        lines += [choice.path, str(choice.priority), *(paths.get(name, "") for name in sorted(followers))]
    return "\n".join([*lines, "", ""])
