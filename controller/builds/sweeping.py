"""Ends steps of builds on another machine, where no signal of ours reaches.

The service has no call for it: a build whose client has gone runs its step to the end. Every build there has control
groups by a name of its own, so a container that sees all processes finds the step's, and ends it; Podman sees the step
fail and removes its container and mounts. That container may do anything on the machine. So the programs in it are
those of an image that no user chose (`helper` below), and never of the build's base.
"""

import asyncio
import contextlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from controller.builds.machine import HostLost
from controller.builds.podman import Podman
from controller.files import write_durably

log = structlog.get_logger()
# $1 is the beginning of the control groups' names. Only what every shell has built in, and sleep. It ends by itself:
# who started it may be killed.
SCRIPT = """
round=0
while [ $round -lt 600 ]; do
  for process in /proc/[0-9]*; do
    while read -r line; do
      case $line in */"$1"*) kill -9 "${process#/proc/}"; break;; esac
    done < "$process/cgroup"
  done 2>/dev/null
  round=$((round + 1))
  sleep 0.1
done
"""
# The folders that a service may have for temporary files: where its environment says, or the usual ones.
FOLDERS = """
{
  echo /var/tmp; echo /tmp
  for process in /proc/[0-9]*; do
    tr '\\0' '\\n' < "$process/environ" | while read -r line; do
      case $line in TMPDIR=/*) echo "${line#TMPDIR=}";; esac
    done
  done 2>/dev/null
}
""".strip()
# Removes the caches of package managers with these names, $@.
FORGET_CACHES = f"""
{FOLDERS} | while read -r folder; do
  for name in "$@"; do
    for cache in "/proc/1/root$folder"/buildah-cache*/"$name"; do
      if [ -d "$cache" ]; then rm -rf "$cache"; fi
    done
  done
done
"""
# Removes the copies of the context, secrets beside them, that a crashed service has left in its folder for temporary
# files: those in which a file is named after the build, $1. The folder is where its environment says, or the usual one.
FORGET = f"""
{FOLDERS} | while read -r folder; do
  for copy in "/proc/1/root$folder"/libpod_builder*; do
    if [ -e "$copy/build/.$1" ] || [ -e "$copy/.$1" ]; then rm -rf "$copy"; fi
  done
done
"""
OPTIONS = (
    "--pull=never", "--privileged", "--pid=host", "--network=none", "--user=0:0", "--pids-limit=0",
    "--entrypoint", "/bin/sh",
)  # fmt: skip
# Seconds in which a service has to clean up after a step that was ended.
DEADLINE = 30.0
SWEEP_LOOKS, SWEEP_PAUSE, LISTINGS = 40, 0.2, 10


@dataclass(frozen=True)
class RemoteBuild:
    """What has to be known of a build on another machine to remove what is left of it there.

    `group`: its control group. `images`: its base, and what its steps made. `before`: containers that were there.
    """

    group: str
    images: tuple[str, ...]
    before: tuple[str, ...]

    def write(self, path: Path) -> None:
        write_durably(path, json.dumps(asdict(self)).encode())

    @staticmethod
    def read(path: Path) -> "RemoteBuild":
        fields = json.loads(path.read_bytes())
        return RemoteBuild(fields["group"], tuple(fields["images"]), tuple(fields["before"]))


def read_notes(folder: Path, but: Collection[Path]) -> list[tuple[Path, RemoteBuild]]:
    """The builds noted in the folder, without those in `but`. A note that cannot be read is set aside: it must not keep
    others from being seen to."""
    found = []
    for path in sorted(set(folder.glob("*.json")) - set(but)):
        try:
            found.append((path, RemoteBuild.read(path)))
        except (ValueError, KeyError, TypeError):
            log.exception("the note of a build cannot be read; what it left on its host may stay there", note=str(path))
            path.rename(path.with_suffix(".bad"))
    return found


async def start_killer(podman: Podman, build: RemoteBuild, helper: str) -> str:
    """From now on steps of the build are ended as soon as they begin; the name of the container that does it."""
    name = f"longshore-end-{build.group}"
    await podman.run("rm", "-f", "-t", "0", "-i", name)
    shell = (helper, "-c", SCRIPT, "sh", build.group)
    started = await podman.run("run", "-d", "--rm", "--name", name, *OPTIONS, *shell)
    if started.returncode != 0:
        raise HostLost(f"cannot end a build there: {started.stderr.strip()[-300:]}")
    return name


async def sweep(podman: Podman, build: RemoteBuild, helper: str) -> None:
    """Afterwards nothing of a build that has lost its client runs or lies there. Only while no other build of this
    controller runs there. `helper`: id of an image of its machine. Raises HostLost."""
    killer = await start_killer(podman, build, helper)
    try:
        await _remove_containers(podman, build)
    finally:
        with contextlib.suppress(HostLost):
            await podman.run("rm", "-f", "-t", "0", "-i", killer)
    await podman.run("run", "--rm", *OPTIONS, helper, "-c", FORGET, "sh", build.group)


def forget_caches(helper: str, names: Sequence[str]) -> list[str]:
    """The arguments for Podman that remove the caches of these names from a machine. `helper` as for `sweep`."""
    return ["run", "--rm", *OPTIONS, helper, "-c", FORGET_CACHES, "sh", *names]


def measure(helper: str, folder: str) -> list[str]:
    """The arguments for Podman that print the KiB of a machine's folder first. `helper` as for `sweep`."""
    return ["run", "--rm", *OPTIONS, helper, "-c", 'du -skx "/proc/1/root$1"', "sh", folder]


async def end_steps(podman: Podman, build: RemoteBuild, helper: str) -> None:
    """Ends what still runs of a build that has lost its client; the service removes what it made, and begins no further
    step. Raises HostLost."""
    killer = await start_killer(podman, build, helper)
    await asyncio.sleep(SWEEP_PAUSE)
    await podman.run("rm", "-f", "-t", "0", "-i", killer)


async def _remove_containers(podman: Podman, build: RemoteBuild) -> None:
    # The service removes what it made, a moment after its step has ended; a service of before does not.
    for _ in range(SWEEP_LOOKS):
        if not await containers_of(podman, build):
            return
        await asyncio.sleep(SWEEP_PAUSE)
    await podman.run("rm", "-f", "-t", "0", *await containers_of(podman, build))


async def containers(podman: Podman) -> list[dict[str, object]]:
    """All containers, those of builds too, whoever makes them."""
    for _ in range(LISTINGS):
        listed = await podman.run("ps", "-a", "--external", "--no-trunc", "--format", "json")
        if listed.returncode == 0:
            break
        # It fails when a container goes while it looks.
        await asyncio.sleep(SWEEP_PAUSE)
    else:
        raise HostLost(f"cannot list containers: {listed.stderr.strip()[-300:]}")
    found: list[dict[str, object]] = json.loads(listed.stdout or "[]") or []
    return found


async def containers_of(podman: Podman, build: RemoteBuild) -> list[str]:
    """Containers that stand on the build's images and were not there before it, but for the one that ends its steps."""
    return [
        str(one["Id"])
        for one in await containers(podman)
        if str(one["Id"]) not in build.before
        and f"longshore-end-{build.group}" not in str(one.get("Names"))
        and _stands_on(str(one.get("ImageID", "")), build.images)
    ]


def _stands_on(image: str, images: Sequence[str]) -> bool:
    # A step's image is known by the beginning of its id.
    return bool(image) and any(image.startswith(known) for known in images)
