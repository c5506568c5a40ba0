"""What a bundle and its preview say, and how the parts that are built for it are named."""

from dataclasses import replace

import pytest
import yaml

from controller.builds.bundles import sources
from controller.builds.bundles.description import describe
from controller.builds.image_build import kept_as
from controller.builds.model import ArtifactKind, TargetJob
from controller.builds.plan import plan_image
from controller.builds.preview import describe_bundle
from controller.builds.requirements import requirements_of
from controller.builds.targets import TargetProfile, load_profiles
from controller.housekeeping.layers import KEPT
from controller.spec.deploy_model import DeploySpec
from controller.spec.model import BuildSpec, Packages

PROFILES = load_profiles()
JOB = TargetJob(
    build_id="b-0123456789abcdef", user_id="alice", project_id="vision", name="digits", profile="x86-cuda",
    spec=BuildSpec(environment={"A": "1"}), repository="r/alice/digits", kind=ArtifactKind.BUNDLE,
    deploy=DeploySpec(entrypoint=["python3"]),
)  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
@pytest.mark.parametrize("runtime", [None, {"kind": "onnx"}])
def test_a_bundle_its_preview_and_an_image_have_the_same_variables(
    profile: TargetProfile, runtime: dict[str, str] | None
) -> None:
    spec = BuildSpec.model_validate({"environment": {"A": "1"}, "runtime": runtime})
    job = replace(JOB, profile=profile.name, spec=spec)
    described = describe(job, profile, requirements_of(job, profile), [])["environment"]
    accelerated = profile.accelerator.environment if profile.accelerator else {}
    assert {**accelerated, "A": "1"}.items() <= described.items()
    assert described == dict(plan_image(job, profile, "base").environment)
    assert described == yaml.safe_load(describe_bundle(job, profile))["environment"]


def test_a_wheel_from_source_is_kept_as_a_part_of_its_build_however_long_its_requirement_is() -> None:
    bounds = ",".join(f"!=1.{number}" for number in range(100))
    made = [sources._job(f"name[extra]>=1,{bounds}{more}", JOB) for more in ("", ",<2")]
    names = [kept_as(job) for job in made]
    assert len(set(names)) == 2
    for name in names:
        assert len(name.rpartition(":")[2]) <= 128
        match = KEPT.fullmatch(name)
        assert match is not None
        assert match["build"] == JOB.build_id
    assert made[0].spec.packages == Packages()
