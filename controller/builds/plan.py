"""What image a job asks for. Pure."""

from controller.builds.image_labels import image_labels
from controller.builds.layers import file_layers
from controller.builds.model import TargetJob
from controller.builds.prepare import Prepared
from controller.builds.requirements import environment_of, provided, requirements_of, runtime_of
from controller.builds.targets import TargetProfile
from controller.rendering import CannotQuote, ImagePlan
from controller.spec.launching import CannotLaunch, launch_words
from controller.spec.runtimes import runtime_file

NOTHING = Prepared()


def plan_image(
    job: TargetJob, profile: TargetProfile, base: str, prepared: Prepared = NOTHING, base_digest: str = ""
) -> ImagePlan:
    """The plan of the job's Containerfile. `base` is the full name of its base image. Raises CannotQuote."""
    packages = requirements_of(job, profile)
    runtime = runtime_of(job)
    return ImagePlan(
        base=base,
        workdir=job.spec.workdir,
        # A package's own code runs while it is installed, and could change what a cache holds for others.
        cache_scope=f"{job.user_id}\n{profile.platform}",
        apt=packages.apt,
        dnf=packages.dnf,
        apk=packages.apk,
        conda=packages.conda,
        conda_channels=packages.conda_channels,
        conda_scripts=prepared.conda_scripts,
        pypi=packages.pypi,
        pypi_indexes=packages.pypi_indexes,
        prepared_root=prepared.root,
        prepared_apt=prepared.apt,
        configure_apt=prepared.apt_configure,
        prepared_pypi=prepared.pypi,
        system_site_packages=provided(job, profile),
        runtime_files=tuple((name, runtime_file(runtime.name, name)) for name in runtime.files) if runtime else (),
        folders=tuple(file_layers(job.files)),
        steps=tuple(job.spec.steps),
        secrets=tuple(sorted(job.spec.secrets)),
        environment=tuple(sorted(environment_of(job, profile).items())),
        labels=tuple(sorted(image_labels(job, base, base_digest).items())),
        ports=tuple(sorted({port.container for port in job.deploy.network.ports})),
        volumes=tuple(sorted(set(job.spec.volumes))),
        entrypoint=_entrypoint(job),
        allow_root=job.spec.allow_root,
    )


def _entrypoint(job: TargetJob) -> tuple[str, ...]:
    try:
        return launch_words(job.deploy.pre_exec, job.deploy.entrypoint)
    except CannotLaunch as error:
        raise CannotQuote(str(error)) from error
