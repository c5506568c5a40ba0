"""The labels of an image: those of the spec, and what others look up there. Pure."""

from controller.builds.model import TargetJob
from controller.builds.origin import origin
from controller.rendering import CannotQuote
from controller.spec.build_rules import CREATED, is_reserved
from controller.spec.runtimes import thread_variables

OWN = "dev.longshore"
# https://specs.opencontainers.org/image-spec/annotations/
OCI = "org.opencontainers.image"


def image_labels(job: TargetJob, base: str, base_digest: str) -> dict[str, str]:
    """Neither build id nor the time of day is in them: the same request gives the same image. Raises CannotQuote."""
    if wrong := sorted(filter(is_reserved, job.spec.labels)):
        raise CannotQuote(f"build.labels names {wrong[0]}, which is set by the build itself")
    labels = {
        **job.spec.labels,
        **_origin(job),
        f"{OCI}.base.name": base,
        f"{OCI}.title": job.name,
        f"{OWN}.name": job.name,
        f"{OWN}.profile": job.profile,
        f"{OWN}.project": job.project_id,
        f"{OWN}.user": job.user_id,
        **_minimum(job),
    }
    # A platform sets these to the number of cores that it gives, where nobody set them.
    if variables := thread_variables(job.spec):
        labels[f"{OWN}.environment.cpu-count"] = ",".join(sorted(variables))
    if base_digest:
        labels[f"{OCI}.base.digest"] = base_digest
    if job.spec.runtime:
        labels[f"{OWN}.runtime"] = job.spec.runtime.kind
    return labels


def _origin(job: TargetJob) -> dict[str, str]:
    try:
        return origin(job.spec, job.deploy, job.files)
    except ValueError as error:
        raise CannotQuote(f"build.labels: {CREATED}: {error}") from error


def _minimum(job: TargetJob) -> dict[str, str]:
    """What a device has to have: cores, bytes, and counts by CDI kind."""
    minimum = job.spec.minimum
    labels = {}
    if minimum.cpu is not None:
        labels[f"{OWN}.minimum.cpu"] = f"{minimum.cpu:g}"
    if minimum.memory is not None:
        labels[f"{OWN}.minimum.memory"] = str(minimum.memory)
    if minimum.accelerators:
        labels[f"{OWN}.minimum.accelerators"] = ",".join(
            f"{kind}={count}" for kind, count in sorted(minimum.accelerators.items())
        )
    return labels
