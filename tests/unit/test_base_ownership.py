"""A spec may build on its own user's images and on everybody's, not on another user's."""

import pytest

from controller.builds.bases import require_allowed
from controller.builds.model import BuildFailed, TargetJob
from controller.spec.model import BuildSpec

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
