"""What a foreign architecture's image needs and no foreign CPU has to make: laid out natively in the build context."""

from dataclasses import dataclass
from pathlib import Path

from controller.builds.log import BuildLog
from controller.builds.model import TargetJob
from controller.builds.targets import TargetProfile


@dataclass(frozen=True)
class Prepared:
    """What lies ready in the context, and is copied into the image instead of being installed by a step.

    `pypi`: the virtual environment, in `prepared/pypi/`, to be copied to /. `apt`: the packages' files, in
    `prepared/apt/`, to be copied to /; `apt_configure`: their maintainer scripts have to run, by emulation.
    `notes`: for people, such as where emulation is used and why.
    """

    pypi: bool = False
    apt: bool = False
    apt_configure: bool = False
    notes: tuple[str, ...] = ()


async def prepare(job: TargetJob, profile: TargetProfile, context: Path, log: BuildLog) -> Prepared:
    """Nothing is prepared for the machine's own architecture, where installing is as fast."""
    return Prepared()
