"""apt packages of a foreign architecture, unpacked from outside into an archive that is added to the base.

Nothing of the base is replaced; dpkg's database has the packages as if dpkg had installed them. Where maintainer
scripts do more than is done from outside, they are left to one step that runs them.
"""

import fnmatch
import posixpath
import re
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from controller.builds.cancelling import in_thread
from controller.builds.debian import alternatives, database, libraries, scripts
from controller.builds.debian.apt import AptFailed, PrivateApt, debian_architecture
from controller.builds.debian.archive import Package, read_package
from controller.builds.debian.sources import NotUnderstood, sources_in
from controller.builds.debian.tree import Node, Tree, write_tar
from controller.builds.host_settings import HostSettings
from controller.builds.log import BuildLog
from controller.builds.outcome import build_failure
from controller.builds.podman import Podman
from controller.builds.prepare_base import BaseFiles
from controller.builds.targets import TargetProfile

DPKG = "/var/lib/dpkg"
# What apt reads besides the sources, and which names no places outside of its folder.
PRIVATE = (
    "/etc/apt/preferences",
    "/etc/apt/trusted.gpg",
    "/etc/apt/keyrings",
    "/usr/share/keyrings",
)
WILDCARD = re.compile(r"[*?\[\\]")
KINDS = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l"}


@dataclass(frozen=True)
class Unpacked:
    """`reason`: why a step has to install the packages instead; else `entries` are what the archive adds to the base,
    as in BaseFiles, and `scripts` name the packages and triggers whose scripts have still to run."""

    reason: str = ""
    scripts: tuple[str, ...] = ()
    entries: Mapping[str, tuple[str, str]] | None = None


async def unpack(
    names: Sequence[str], base: BaseFiles, profile: TargetProfile, host: HostSettings, podman: Podman, scratch: Path,
    target: Path, log: BuildLog,
) -> Unpacked:  # fmt: skip
    """Writes the archive to `target`. Raises BuildFailed with the reasons of the step that it stands for."""
    if f"{DPKG}/status" not in base.texts:
        return Unpacked("the base has no packages of Debian's kind")
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return Unpacked("the programs apt-get and dpkg-deb are not on the controller's machine")
    apt = PrivateApt(scratch, profile.architecture, host, podman.environment())
    try:
        await in_thread(lend, apt, base)
    except NotUnderstood:
        return Unpacked("the base's package sources are not all of the plain kind, at http or https")
    log("system", f"fetching {len(names)} apt packages for {profile.platform}, without emulation")
    try:
        await apt.update(log)
        if replaced := await apt.replaced(names):
            return Unpacked(f"packages of the base are replaced: {', '.join(replaced)}")
        archives = await apt.download(names, log)
    except AptFailed as error:
        step = f"STEP 1/1: RUN : 'apt-get install ({len(names)} packages)'"
        raise build_failure([step, *error.lines], error.status, profile.platform) from error
    return await in_thread(_write, archives, base, debian_architecture(profile.architecture), target)


def lend(apt: PrivateApt, base: BaseFiles) -> None:
    """The base's sources, keys and package state, for the apt of this machine. Raises NotUnderstood."""

    def own(path: str) -> str:
        # A key may be a link to another; one that is not there would be looked for on this machine.
        real = base.real(path)
        if real not in base.texts or not real.startswith(PRIVATE):
            raise NotUnderstood
        return f"{apt.folder}{real}"

    sources = [source.line(own) for source in sources_in(base.texts)]
    apt.prepare()
    for path, content in base.texts.items():
        if path.startswith(PRIVATE):
            copy = apt.folder / path.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
    (apt.folder / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in sources), encoding="ascii")
    (apt.folder / DPKG.lstrip("/") / "status").write_bytes(base.texts[f"{DPKG}/status"])


def _write(archives: Sequence[Path], base: BaseFiles, architecture: str, target: Path) -> Unpacked:
    packages = [read_package(path) for path in archives]
    if reason := _obstacle(packages, base):
        return Unpacked(reason)
    addition = _Addition(base, packages, architecture)
    entries = addition.entries()
    write_tar(target, sorted(entries.items()))
    shapes = {path: (KINDS.get(node.kind, "f"), node.link) for path, node in entries.items()}
    return Unpacked("", tuple(sorted({*addition.waiting, *addition.pulled})), shapes)


def _obstacle(packages: Sequence[Package], base: BaseFiles) -> str:
    before = sorted(package.name for package in packages if scripts.matters_before(package))
    if before:
        return f"scripts have to run before these are unpacked: {', '.join(before)}"
    diverted = set(base.texts.get(f"{DPKG}/diversions", b"").decode().split("\n")[::3]) - {""}
    moved = sorted(path for package in packages for path, _ in package.files if path in diverted)
    return f"the base has other files in place of {', '.join(moved)}" if moved else ""


class _Addition:
    """What packages add to a base. `waiting`: stems of those whose scripts have still to run; `pulled`: triggers for
    which scripts of other packages have to."""

    def __init__(self, base: BaseFiles, packages: Sequence[Package], architecture: str) -> None:
        self._base = base
        self._packages = packages
        self._architecture = architecture
        self._choices = {one.stem: alternatives.choices_in(one.text("postinst")) for one in packages}
        self.pulled = self._triggers()
        self.waiting = {one.stem for one in packages if scripts.matters_after(one) or self._clashes(one)}

    def entries(self) -> dict[str, Node]:
        tree = Tree()
        found: dict[str, Node] = {}
        wanted = _Wanted.of(self._base)
        for package in self._packages:
            later = set(database.conffiles(package)) if package.stem in self.waiting else set()
            for path, node in package.files:
                if wanted.has(path, node) and path != "/":
                    tree.add(path, node)
                    self._place(found, f"{path}.dpkg-new" if path in later else path, node)
        made = Tree()
        self._make(tree, made)
        for path in made:
            node = made.node(path)
            if node.kind != tarfile.DIRTYPE or path not in found:
                self._place(found, path, node)
        return found

    def _make(self, tree: Tree, made: Tree) -> None:
        """What the scripts would have made, and dpkg's records."""
        done = [one for one in self._packages if one.stem not in self.waiting]
        with_choices = [choice for one in done for choice in self._choices[one.stem]]
        alternatives.install(tree, with_choices)
        for path in tree:
            if path.startswith(("/etc/alternatives/", f"{DPKG}/alternatives/")):
                made.add(path, tree.node(path))
        for choice in with_choices:
            for link, _, _ in ((choice.link, "", ""), *choice.followers):
                if link in tree:
                    made.add(link, tree.node(link))
        if cache := self._base.texts.get("/etc/ld.so.cache"):
            made.write("/etc/ld.so.cache", libraries.extended_cache(cache, tree, self._architecture))
        database.add_records(made, self._packages)
        made.write(f"{DPKG}/status", self._status())
        self._record_triggers(made)

    def _status(self) -> str:
        """The base's, without what remained there of packages that come back."""
        names = {package.name for package in self._packages}
        before = self._base.texts[f"{DPKG}/status"].decode()
        kept = [
            one
            for one in before.strip("\n").split("\n\n")
            if one.partition("\n")[0].removeprefix("Package: ") not in names
        ]
        return "".join(f"{one}\n\n" for one in kept) + database.status(self._packages, self.waiting)

    def _record_triggers(self, made: Tree) -> None:
        own = Tree()
        database.write_triggers(own, self._packages)
        for path in own:
            if own.node(path).kind == tarfile.REGTYPE:
                text = self._base.texts.get(path, b"").decode() + own.read(path).decode()
                if path.endswith("/Unincorp"):
                    text += "".join(f"{trigger} -\n" for trigger in self.pulled)
                made.write(path, text)

    def _triggers(self) -> list[str]:
        """Triggers that other packages wait for and that these pull; the one of ldconfig is served from outside."""
        lines = self._base.texts.get(f"{DPKG}/triggers/File", b"").decode().splitlines()
        awaited = {line.partition(" ")[0] for line in lines if line}
        paths = [path for package in self._packages for path, _ in package.files]
        pulled = {one for one in awaited for path in paths if path == one or path.startswith(f"{one}/")}
        named = {name for package in self._packages for name in database.activated(package) if not name.startswith("/")}
        return sorted(pulled | {name for name in named - {"ldconfig"} if f"{DPKG}/triggers/{name}" in self._base.texts})

    def _clashes(self, package: Package) -> bool:
        """Whether it offers an alternative that the base has already."""
        return any(self._base.is_there(f"{DPKG}/alternatives/{choice.name}") for choice in self._choices[package.stem])

    def _place(self, found: dict[str, Node], path: str, node: Node) -> None:
        if node.kind == tarfile.DIRTYPE and self._base.is_folder(path):
            return
        if node.kind == tarfile.LNKTYPE:
            node = replace(node, link=self._real(node.link))
        found[self._real(path)] = node

    def _real(self, path: str) -> str:
        return posixpath.join(self._base.real(posixpath.dirname(path)), posixpath.basename(path))


@dataclass(frozen=True)
class _Wanted:
    """dpkg's path-exclude and path-include of the base: the last that fits a path counts. dpkg(1)"""

    rules: tuple[tuple[bool, str], ...]

    @staticmethod
    def of(base: BaseFiles) -> "_Wanted":
        texts = (base.texts[path].decode() for path in sorted(base.texts) if path.startswith("/etc/dpkg/dpkg.cfg"))
        found = [re.findall(r"^path-(include|exclude)[ \t=]+(\S+)", text, re.MULTILINE) for text in texts]
        return _Wanted(tuple((kind == "include", pattern) for rules in found for kind, pattern in rules))

    def has(self, path: str, node: Node) -> bool:
        fitting = [include for include, pattern in self.rules if fnmatch.fnmatchcase(path, pattern)]
        if not fitting or fitting[-1]:
            return True
        # dpkg keeps folders, and links that may lead to some, below which a rule may bring something back.
        return node.kind in KINDS and any(
            include and path.startswith(WILDCARD.split(pattern)[0].rstrip("/")) for include, pattern in self.rules
        )
