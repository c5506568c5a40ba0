"""Whether this machine can run what was made for a platform."""

import platform

from edge_agent.runtime.backend import BackendError

# What this machine's processor runs, by the names that images use.
RUNS = {
    "x86_64": ("amd64", "386"),
    "aarch64": ("arm64", "arm"),
    "armv7l": ("arm",),
    "riscv64": ("riscv64",),
}


def check_platform(reference: str, system: str, architecture: str) -> None:
    """Raises BackendError "WrongArchitecture", final; what is empty is taken to fit."""
    machine = platform.machine()
    can_run = RUNS.get(machine, (machine,))
    if architecture not in ("", *can_run) or system not in ("", "linux"):
        message = f"{reference} is for {system}/{architecture}; this device runs linux/{can_run[0]}"
        raise BackendError("WrongArchitecture", message, retryable=False)


def os_and_architecture(name: str) -> tuple[str, str]:
    """Of "linux/arm64/v8"; empty where nothing is said."""
    parts = [*name.split("/"), "", ""]
    return parts[0], parts[1]
