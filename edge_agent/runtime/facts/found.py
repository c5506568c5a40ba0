"""One accelerator, as its files tell of it."""

from dataclasses import dataclass
from pathlib import Path

NVIDIA = "nvidia.com/gpu"
MALI = "arm.com/mali"
ROCKCHIP = "rockchip.com/npu"
HAILO = "hailo.ai/npu"
CORAL = "coral.ai/edgetpu"


@dataclass(frozen=True)
class Accelerator:
    """`nodes` are its device nodes, `cdi` its qualified CDI names. `load` is the file that tells how busy it is, in the
    form of its driver; None where there is none."""

    kind: str
    name: str = ""
    nodes: tuple[str, ...] = ()
    cdi: tuple[str, ...] = ()
    memory_bytes: int = 0
    driver: str = ""
    load: Path | None = None

    @property
    def devices(self) -> tuple[str, ...]:
        """By which a workload gets it."""
        return self.cdi or self.nodes

    def is_given_by(self, device: str) -> bool:
        """Whether a workload that names this device gets the accelerator."""
        return device in self.cdi or device in self.nodes or device == f"{self.kind}=all"
