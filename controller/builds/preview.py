"""What would be built, without building: the text that says how each target is made. Pure."""

from dataclasses import dataclass

import yaml

from controller.builds.emulation import own_architecture
from controller.builds.model import ArtifactKind, ContextFile, TargetJob
from controller.builds.plan import plan_image
from controller.builds.requirements import base_of, environment_of, requirements_of
from controller.builds.targets import TargetProfile
from controller.events.model import Project
from controller.rendering import render
from controller.spec.image_names import full_name
from controller.spec.launching import launch_words
from controller.spec.model import Spec, TargetSpec


@dataclass(frozen=True)
class Preview:
    """One target: its Containerfile, or a bundle's description in YAML. `notes` are sentences for people."""

    target: TargetSpec
    platform: str
    kind: ArtifactKind
    text: str
    notes: tuple[str, ...]


def preview(project: Project, spec: Spec, target: TargetSpec, profile: TargetProfile) -> Preview:
    """The target as it would be built from files that are not there yet. Raises CannotQuote and BuildFailed."""
    kind = ArtifactKind(target.artifact)
    # Sizes are not known, and with them neither which file is a layer of its own.
    files = tuple(ContextFile(path, "", 0) for path in spec.build.files)
    job = TargetJob(
        build_id="", user_id=project.user_id, project_id=project.project_id, name=spec.name, profile=profile.name,
        spec=spec.build, repository="", deploy=spec.deploy, files=files, kind=kind, target=target.key,
    )  # fmt: skip
    text = describe_bundle(job, profile) if kind is ArtifactKind.BUNDLE else _containerfile(job, profile)
    return Preview(target, profile.platform, kind, text, tuple(_notes(job, profile)))


def describe_bundle(job: TargetJob, profile: TargetProfile) -> str:
    """What the bundle will hold, in YAML; versions are chosen when it is built."""
    packages = requirements_of(job, profile)
    content = {
        "name": job.name,
        "platform": profile.platform,
        "python": profile.python,
        "device_packages": list(packages.apt),
        "packages": list(packages.pypi),
        "indexes": list(packages.pypi_indexes),
        "files": [file.path for file in job.files],
        "workdir": job.spec.workdir,
        "environment": environment_of(job, profile),
        "entrypoint": list(launch_words(job.deploy.pre_exec, job.deploy.entrypoint)),
    }
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return text


def _containerfile(job: TargetJob, profile: TargetProfile) -> str:
    return render(plan_image(job, profile, full_name(base_of(job.spec, profile))))


def _notes(job: TargetJob, profile: TargetProfile) -> list[str]:
    notes = [profile.notes.strip()] if profile.notes else []
    foreign = profile.architecture != own_architecture()
    if foreign and job.kind is ArtifactKind.IMAGE:
        notes.append(
            f"A builder of another architecture than {profile.architecture} lays the packages out beside the image "
            "and copies them into it."
        )
        if job.spec.steps:
            notes.append("build.steps run by emulation there, and take several times as long.")
    return notes
