"""Ending what builds left on another machine: whose programs do that, and which notes say what is left."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from controller.builds import sweeping
from controller.builds.bases import Base
from controller.builds.model import BuildFailed
from controller.builds.podman import Podman
from controller.builds.processes import Completed
from controller.builds.remote import RemotePlace
from controller.builds.remote_images import Helper
from controller.builds.remote_podman import RemotePodman
from controller.builds.sweeping import RemoteBuild, end_steps, read_notes, sweep
from controller.builds.tunnels import Tunnel, private_folder

INFO = '{"host": {"arch": "amd64"}, "store": {"graphRoot": "/storage"}}'
BUILD = RemoteBuild("longshore-1", ("users-base", "users-step"), ())


class RecordingPodman:
    """Has the images in `images`; an archive that it loads is the image `helper`."""

    def __init__(self, *images: str) -> None:
        self.images = set(images)
        self.temporary = Path("/nowhere")
        self.commands: list[Sequence[str]] = []

    async def run(self, *args: str) -> Completed:
        self.commands.append(args)
        if args[0] == "load":
            self.images.add("helper")
        missing = args[:2] == ("image", "exists") and args[2] not in self.images
        return Completed(int(missing), INFO if args[0] == "info" else "", "")


def podman(recording: RecordingPodman) -> Podman:
    return cast(Podman, cast(Any, recording))


@pytest.mark.parametrize("look_after", [sweep, end_steps])
async def test_nothing_of_a_users_image_runs_with_rights_on_a_machine(
    look_after: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "SWEEP_PAUSE", 0)
    far = RecordingPodman()
    await look_after(podman(far), BUILD, "helper")
    privileged = [command for command in far.commands if "--privileged" in command]
    assert privileged != []
    for command in privileged:
        assert command[command.index("/bin/sh") + 1] == "helper"
        assert not {"users-base", "users-step"} & set(command)


async def test_the_helper_is_sent_once_and_again_where_it_was_removed() -> None:
    asked: list[str] = []

    async def find(architecture: str) -> Base:
        asked.append(architecture)
        return Base("the operator's", "helper")

    own, far = RecordingPodman(), RecordingPodman()
    helper = Helper(find, podman(own))
    for _ in range(2):
        assert await helper.on(podman(far), "amd64") == "helper"
    assert asked == ["amd64"]
    far.images.clear()
    await helper.on(podman(far), "amd64")
    assert [command[0] for command in far.commands].count("load") == 2


class ScriptedPlace(RemotePlace):
    """A host whose Podman is `recording`."""

    def __init__(self, recording: RecordingPodman, journal: Path) -> None:
        async def find(architecture: str) -> Base:
            return Base("the operator's", "helper")

        super().__init__("ssh://far", cast(Tunnel, None), (), podman(RecordingPodman()), journal, find)
        self._recording = recording

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[RemotePodman]:
        yield cast(RemotePodman, podman(self._recording))


async def test_steps_of_a_lost_build_are_ended_once_while_others_run_and_it_is_removed_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "SWEEP_PAUSE", 0)
    BUILD.write(tmp_path / "lost.json")
    far = RecordingPodman("users-base")
    place = ScriptedPlace(far, tmp_path)
    async with place.open():
        for _ in range(3):
            await place.probe()
        assert len([command for command in far.commands if "--privileged" in command]) == 1
        assert (tmp_path / "lost.json").exists()
    await place.probe()
    assert not (tmp_path / "lost.json").exists()
    assert any("rm -rf" in word for command in far.commands for word in command)


def test_a_connection_that_finds_no_room_for_its_socket_may_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="cannot make a folder") as caught, private_folder(tmp_path / "none"):
        pass
    assert caught.value.retryable


def test_a_note_that_cannot_be_read_is_set_aside_and_the_others_are_read(tmp_path: Path) -> None:
    BUILD.write(tmp_path / "good.json")
    BUILD.write(tmp_path / "runs.json")
    for name, content in (("cut", '{"group": "lo'), ("other", "[]"), ("old", json.dumps({"group": "x"}))):
        (tmp_path / f"{name}.json").write_text(content)
    assert read_notes(tmp_path, [tmp_path / "runs.json"]) == [(tmp_path / "good.json", BUILD)]
    assert {path.name for path in tmp_path.iterdir()} == {"good.json", "runs.json", "cut.bad", "other.bad", "old.bad"}
