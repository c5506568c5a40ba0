"""What a backend cannot do is refused by name, before anything is fetched."""

import pytest

from edge_agent.runtime.backend import Capabilities, Unsupported
from edge_agent.runtime.fake_backend import ALL_CAPABILITIES
from edge_agent.runtime.fitting import described, refuse_unsupported
from edge_agent.runtime.model import Artifact, ArtifactKind, Mount, ProjectVolume, Resources, Secret, Volume
from tests.support.workloads import make_workload

BARE = Capabilities(artifacts=frozenset({ArtifactKind.IMAGE}))
DEMANDING = make_workload(
    artifact=Artifact("registry.example/digits", "sha256:abc", "linux/amd64", ArtifactKind.BUNDLE),
    mounts=(Mount("/srv", "/srv"),),
    volumes=(Volume("data", "/data"),),
    project_volumes=(ProjectVolume("model", "/m", "registry.example/v", f"sha256:{'a' * 64}"),),
    secrets=(Secret("token", "/run/secrets/token", b"hush"),),
    devices=("nvidia.com/gpu=all",),
    resources=Resources(1000, 2**30, 64, 2**26, "0"),
)


def test_everything_that_is_lacking_is_named_at_once_and_for_good() -> None:
    with pytest.raises(Unsupported) as caught:
        refuse_unsupported(DEMANDING, BARE)
    assert not caught.value.retryable
    wanted = (
        "kind bundle",
        "mounts",
        "volumes",
        "project volumes",
        "secrets",
        "devices",
        "CPU time",
        "memory",
        "processes",
        "cores",
    )
    assert all(word in caught.value.message for word in wanted)
    assert "hush" not in caught.value.message


def test_a_backend_that_can_do_everything_refuses_nothing() -> None:
    refuse_unsupported(DEMANDING, ALL_CAPABILITIES)


def test_a_plain_workload_needs_no_capability() -> None:
    refuse_unsupported(make_workload(), BARE)


def test_facts_tell_what_a_backend_can_do_and_by_what_means() -> None:
    able = Capabilities(artifacts=frozenset({ArtifactKind.BUNDLE}), cpu_limit=True, limits_by="cgroup-v1")
    assert described(able) == ["artifact:bundle", "cpu-limit", "limits:cgroup-v1"]
