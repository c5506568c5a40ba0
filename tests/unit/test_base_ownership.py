"""A spec may build on its own user's images and on everybody's, not on another user's, and where the operator says."""

from pathlib import Path

import pytest

from controller.builds import registry_session
from controller.builds.bases import BaseResolver, require_allowed
from controller.builds.bootstrap import Bootstrapper
from controller.builds.model import BuildFailed, RegistryAccess, TargetJob
from controller.builds.podman import Podman
from controller.builds.processes import Completed
from controller.builds.targets import load_profiles
from controller.spec.model import BuildSpec

PROFILE = load_profiles()["x86-cpu"]
JOB = TargetJob(
    build_id="b-1", user_id="alice", project_id="vision", name="digits", profile="x86-cpu", spec=BuildSpec(),
    repository="registry:5000/alice/vision/digits",
)  # fmt: skip


@pytest.mark.parametrize(
    "base",
    [
        "python:3.11-slim",
        "registry:5000/alice/other/image:1",
        "registry:5000/library/python:3.11",
        "registry.example/bob/image",
        "localhost:5001/bob/image",
    ],
)
def test_own_images_and_those_of_other_registries_are_allowed(base: str) -> None:
    require_allowed(base, JOB)


@pytest.mark.parametrize(
    "base",
    [
        "registry:5000/bob/vision/digits:b-2",
        "registry:5000/alicex/vision/digits",
        "registry:5000/image",
        "localhost/longshore/build/x86-cpu:b-2",
    ],
)
def test_images_of_other_users_are_not(base: str) -> None:
    with pytest.raises(BuildFailed, match=r"correct build\.base") as refused:
        require_allowed(base, JOB)
    assert (refused.value.reason, refused.value.retryable) == ("BaseNotFound", False)


class NoPodman(Podman):
    async def run(self, *args: str, temporary: Path | None = None) -> Completed:
        raise BuildFailed("BaseUnreachable", "no storage")


@pytest.mark.parametrize(
    ("base", "taken"),
    [
        ("127.0.0.1:1/own:1", False),
        ("debian:bookworm", False),
        ("127.0.0.1:2/me/own:1", True),
        ("127.0.0.1:9/library/own:1", True),
        (PROFILE.base, True),
    ],
)
async def test_only_registries_that_the_operator_allows_are_asked(
    base: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry_session.API_HOSTS, "docker.io", "127.0.0.1:1")
    podman = NoPodman(tmp_path)
    own = RegistryAccess("127.0.0.1:9", None, lambda: ("", ""))
    resolver = BaseResolver(podman, Bootstrapper(podman, tmp_path), own, 5, allowed=("127.0.0.1:2",))
    if taken:
        # Nothing answers there, and nothing is kept.
        with pytest.raises(BuildFailed) as asked:
            await resolver.resolve(base, PROFILE, tmp_path, lambda *_: None)
        assert asked.value.reason == "BaseUnreachable"
    else:
        with pytest.raises(BuildFailed, match=r"this site takes no bases; correct build\.base") as refused:
            await resolver.resolve(base, PROFILE, tmp_path, lambda *_: None)
        assert (refused.value.reason, refused.value.retryable) == ("BaseNotFound", False)
