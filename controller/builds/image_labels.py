"""The labels of an image: those of the spec, and what others look up there. Pure."""

from controller.builds.model import TargetJob
from controller.builds.requirements import runtime_of
from controller.rendering import CannotQuote

OWN = "dev.longshore"
# https://specs.opencontainers.org/image-spec/annotations/
OCI = "org.opencontainers.image"
# Those of OCI's that describe the content, which only its author knows; all others are ours.
DESCRIPTIVE = frozenset(
    f"{OCI}.{name}"
    for name in (
        "authors",
        "description",
        "documentation",
        "licenses",
        "revision",
        "source",
        "url",
        "vendor",
        "version",
    )
)
# Numeric libraries start as many threads as the machine has cores, whatever a container's share.
CPU_COUNT_VARIABLES = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def reserved(label: str) -> bool:
    """Whether a spec may not set this label itself."""
    ours = label.startswith((f"{OWN}.", "org.opencontainers.")) or label in (OWN, OCI)
    return ours and label not in DESCRIPTIVE


def image_labels(job: TargetJob, base: str, base_digest: str) -> dict[str, str]:
    """Neither build id nor time is in them: the same request gives the same image. Raises CannotQuote."""
    if wrong := sorted(filter(reserved, job.spec.labels)):
        raise CannotQuote(f"build.labels names {wrong[0]}, which is set by the build itself")
    runtime = runtime_of(job)
    variables = sorted({*CPU_COUNT_VARIABLES, *(runtime.thread_variables if runtime else ())})
    labels = {
        **job.spec.labels,
        # The time of everything in the image: that of the inputs is not part of it.
        f"{OCI}.created": "1970-01-01T00:00:00Z",
        f"{OCI}.base.name": base,
        f"{OCI}.title": job.name,
        f"{OWN}.name": job.name,
        f"{OWN}.profile": job.profile,
        f"{OWN}.project": job.project_id,
        f"{OWN}.user": job.user_id,
        f"{OWN}.environment.cpu-count": ",".join(variables),
        **_minimum(job),
    }
    if base_digest:
        labels[f"{OCI}.base.digest"] = base_digest
    if job.spec.runtime:
        labels[f"{OWN}.runtime"] = job.spec.runtime.kind
    return labels


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
