"""What goes from a builder host, by what the host tells of its disk."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from controller.builds.podman import Podman
from controller.builds.processes import Completed
from controller.builds.remote_keeping import HostKeeper, HostPolicy
from controller.builds.remote_uses import HostUses, Kind


class HostPodman:
    """Of a host whose images are 100 GiB and none of which makes a difference; `removed` are those that went."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self._store = {"graphRoot": "/storage", **sizes}
        self.removed: list[str] = []

    async def run(self, *args: str) -> Completed:
        if args[0] == "info":
            return Completed(0, json.dumps({"store": self._store, "host": {"arch": "amd64"}}), "")
        if args[0] == "rmi":
            self.removed.append(args[-1])
        if args[0] == "image":
            return Completed(int(args[-1] in self.removed), "", "")
        return Completed(0, f"{100 * 2**20}\t/storage\n", "")


@pytest.mark.parametrize(
    ("sizes", "gone"),
    [({}, []), ({"graphRootAllocated": 2**40, "graphRootUsed": 2**39}, ["image-a", "image-b"])],
    ids=["does not tell", "tells"],
)
async def test_of_a_host_that_does_not_tell_its_free_space_nothing_goes_for_its_size(
    tmp_path: Path, sizes: dict[str, int], gone: list[str]
) -> None:
    uses = HostUses(tmp_path)
    for name in ("image-a", "image-b"):
        uses.note(Kind.IMAGE, name)
    podman = HostPodman(sizes)

    async def tool() -> str:
        return "tool"

    await HostKeeper("far", uses, HostPolicy()).tidy(cast(Podman, cast(Any, podman)), tool)
    assert sorted(podman.removed) == gone
