"""What is in a base image, read from outside: which files, and the text of a few."""

import json
import os
import posixpath
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from controller.builds import processes
from controller.builds.cancelling import in_thread
from controller.builds.model import BuildFailed
from controller.builds.podman import Podman

# All paths of the image's tree, and an archive of what is read of it. The mount ends with the script.
READ = """
set -eu
out=$1 id=$2 paths=$3 files=$4; shift 4
root=$("$@" image mount "$id")
trap '"$@" image unmount "$id" >/dev/null' EXIT
cd "$root"
(ulimit -f "$paths" && exec find . -xdev -printf '%y\\t%P\\t%l\\0') >"$out/list"
for name in etc/passwd etc/group etc/apt etc/dpkg etc/ld.so.cache usr/share/keyrings \\
  var/lib/dpkg/status var/lib/dpkg/diversions var/lib/dpkg/arch var/lib/dpkg/triggers
do
  # A link above it could lead to a file of this machine.
  above=$(realpath -q -e "$(dirname "$name")") || continue
  if [ "$above" = "$(pwd -P)/$(dirname "$name")" ] && [ -e "$name" ]; then echo "$name"; fi
done >"$out/names"
(ulimit -f "$files" && exec tar -c -f "$out/files.tar" -T "$out/names")
cd /
"""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_LINKS = 40
# Bytes of the two answers: all is held in memory, and what a base says of itself is anybody's. Ordinary bases have a
# hundredth of it.
MAX_PATHS = 128 * 2**20
MAX_FILES = 64 * 2**20
# ulimit counts in these, as POSIX has it.
BLOCK = 512


@dataclass(frozen=True)
class BaseFiles:
    """`entries`: kind as `find` says it ("f", "d", "l") and target of a link, by absolute path. `texts`: contents of
    the files that were read. `environment`: of the image's configuration."""

    entries: Mapping[str, tuple[str, str]]
    texts: Mapping[str, bytes]
    environment: Mapping[str, str]

    def real(self, path: str) -> str:
        """The path without links, whether something is there or not."""
        done = ""
        todo = [part for part in path.split("/") if part]
        for _ in range(len(todo) + MAX_LINKS):
            if not todo:
                break
            done, rest = posixpath.join("/", done, todo[0]), todo[1:]
            kind, link = self.entries.get(done, ("", ""))
            if kind == "l":
                target = posixpath.normpath(posixpath.join(posixpath.dirname(done), link))
                done, rest = "", [*(part for part in target.split("/") if part), *rest]
            todo = rest
        return done or "/"

    def is_folder(self, path: str) -> bool:
        real = self.real(path)
        return real == "/" or self.entries.get(real, ("", ""))[0] == "d"

    def is_there(self, path: str) -> bool:
        return self.real(path) in self.entries

    def which(self, program: str) -> str | None:
        """Where a shell would find it; the path as it would name it."""
        folders = self.environment.get("PATH", PATH).split(":")
        return next((f"{one}/{program}" for one in folders if one and self.is_there(f"{one}/{program}")), None)

    def plus(self, entries: Mapping[str, tuple[str, str]]) -> "BaseFiles":
        return replace(self, entries={**self.entries, **entries})


async def read_base(podman: Podman, image_id: str, scratch: Path) -> BaseFiles:
    """`scratch` is an empty folder. Raises BuildFailed."""
    limits = [str(limit // BLOCK) for limit in (MAX_PATHS, MAX_FILES)]
    script = ["sh", "-c", READ, "sh", str(scratch), image_id, *limits, *podman.argv([])]
    # A storage without root is mounted in a namespace of its own.
    argv = podman.argv(["unshare", *script]) if os.geteuid() != 0 else script
    done = await processes.run(argv, podman.environment())
    if done.returncode != 0:
        await in_thread(_require_usual_size, scratch)
        raise BuildFailed("BaseUnusable", f"cannot read the base image: {done.stderr.strip()}", retryable=True)
    answer = await podman.run("image", "inspect", "--format", "{{json .Config.Env}}", image_id)
    environment = dict(one.partition("=")[::2] for one in json.loads(answer.stdout or "null") or [])
    return await in_thread(_read, scratch, environment)


def _require_usual_size(scratch: Path) -> None:
    for name, limit, what in (
        ("list", MAX_PATHS, "paths"),
        ("files.tar", MAX_FILES, "records of packages and accounts"),
    ):
        file = scratch / name
        if file.exists() and file.stat().st_size >= limit:
            raise BuildFailed("BaseTooLarge", f"the {what} of the base image take more than {limit // 2**20} MiB")


def _read(scratch: Path, environment: Mapping[str, str]) -> BaseFiles:
    entries = {}
    for line in (scratch / "list").read_bytes().decode(errors="surrogateescape").split("\0")[:-1]:
        kind, path, link = line.split("\t", 1)[0], *line.split("\t", 1)[1].rsplit("\t", 1)
        entries[f"/{path}"] = (kind, link)
    texts = {}
    with tarfile.open(scratch / "files.tar") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                texts[f"/{member.name}"] = content.read()
    return BaseFiles(entries, texts, environment)
