"""What image a job asks for. Pure."""

from controller.builds.model import TargetJob
from controller.builds.prepare import Prepared
from controller.builds.targets import TargetProfile
from controller.rendering import ImagePlan

NOTHING = Prepared()
ANNOTATIONS = "org.opencontainers.image"


def plan_image(job: TargetJob, profile: TargetProfile, base: str, prepared: Prepared = NOTHING) -> ImagePlan:
    """The plan of the job's Containerfile. `base` is the full name of its base image.

    Neither build id nor time is in it: the same request gives the same image.
    """
    labels = {
        f"{ANNOTATIONS}.base.name": base,
        f"{ANNOTATIONS}.title": job.name,
        "dev.longshore.name": job.name,
        "dev.longshore.profile": job.profile,
        "dev.longshore.project": job.project_id,
        "dev.longshore.user": job.user_id,
    }
    return ImagePlan(
        base=base,
        workdir=job.spec.workdir,
        apt=tuple(dict.fromkeys(job.spec.packages.apt)),
        pypi=tuple(dict.fromkeys(job.spec.packages.pypi)),
        has_files=bool(job.files),
        environment=tuple(sorted(job.spec.environment.items())),
        labels=tuple(sorted(labels.items())),
        ports=tuple(sorted({port.container for port in job.deploy.network.ports})),
        entrypoint=tuple(job.deploy.entrypoint),
    )
