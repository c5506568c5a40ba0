"""What a device is told about a bundle, and the OCI manifest that holds it together. Pure.

docs/design/bundles.md is the manual of both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from controller.builds.blobs import Blob, blob_of
from controller.builds.bundles.lock import LockedWheel, lock_text
from controller.builds.bundles.packing import APPLICATION, RUNTIME
from controller.builds.image_labels import OCI, image_labels
from controller.builds.model import BuildFailed, TargetJob
from controller.builds.origin import REVISION
from controller.builds.referrers import artifact_manifest, canonical
from controller.builds.requirements import Requirements, environment_of
from controller.builds.targets import TargetProfile
from controller.rendering import CannotQuote
from controller.spec.build_rules import CREATED
from controller.spec.launching import CannotLaunch, launch_words

ARTIFACT_TYPE = "application/vnd.longshore.bundle.v1+json"
CONFIG_TYPE = "application/vnd.longshore.bundle.config.v1+json"
# Where an image has what a bundle brings along; commands name these places.
RUNTIME_PLACE, ENVIRONMENT_PLACE = "/opt/longshore/runtime", "/opt/venv"
SCHEMA = 1
# Labels that differ with the code: the manifest has them, so that a description moves to devices once.
OF_INPUTS = frozenset((REVISION, CREATED))


def describe(
    job: TargetJob, profile: TargetProfile, requirements: Requirements, wheels: Sequence[LockedWheel]
) -> dict[str, Any]:
    """The description: it has all that a device needs but the contents. Raises BuildFailed.

    Neither build id nor time is in it: the same request gives the same bundle.
    """
    return {
        "schema": SCHEMA,
        "name": job.name,
        "profile": profile.name,
        "platform": profile.platform,
        "python": profile.python,
        "lock": lock_text(wheels),
        "wheels": [{"file": wheel.file, "digest": f"sha256:{wheel.sha256}"} for wheel in wheels],
        "packages": {"apt": sorted(requirements.apt)},
        "entrypoint": list(_entrypoint(job)),
        "environment": environment_of(job, profile),
        "workdir": job.spec.workdir,
        "places": {job.spec.workdir: APPLICATION, RUNTIME_PLACE: RUNTIME, ENVIRONMENT_PLACE: "environment"},
        "ports": {port.name: port.container for port in job.deploy.network.ports},
        "labels": {key: value for key, value in labels(job).items() if key not in OF_INPUTS},
    }


def labels(job: TargetJob) -> dict[str, str]:
    """As those of an image, without what is said of a base. Raises BuildFailed."""
    try:
        found = image_labels(job, "", "")
    except CannotQuote as error:
        raise BuildFailed("InvalidSpec", str(error)) from error
    return {key: value for key, value in sorted(found.items()) if not key.startswith(f"{OCI}.base.")}


def manifest(
    description: Mapping[str, Any], annotations: Mapping[str, str], layers: Sequence[Blob]
) -> tuple[Blob, bytes]:
    """The configuration and the manifest of a bundle."""
    config = blob_of(CONFIG_TYPE, canonical(description))
    return config, artifact_manifest(ARTIFACT_TYPE, config, layers, annotations=annotations)


def _entrypoint(job: TargetJob) -> tuple[str, ...]:
    try:
        return launch_words(job.deploy.pre_exec, job.deploy.entrypoint)
    except CannotLaunch as error:
        raise BuildFailed("InvalidSpec", str(error)) from error
