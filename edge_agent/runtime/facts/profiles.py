"""Which target profile to propose for a machine."""

import re

from edge_agent.runtime.facts.found import NVIDIA
from longshore.v1 import device_pb2

# Architecture -> target profile of a machine of which nothing else is known.
PROFILES = {"amd64": "x86-cpu", "arm64": "arm64-cpu", "arm": "armv7-cpu"}
# What the device tree calls the board -> its profile.
BOARDS = (
    (r"Raspberry Pi (5|500|Compute Module 5)\b", "raspberry-pi-5"),
    (r"\bODROID-M1$", "odroid-m1"),
    (r"\bODROID-N2(Plus|L)?$", "odroid-n2"),
    (r"^comma tizi$", "comma-3x"),
)
# What the GPU of a Jetson is called: the boards that carry its modules have many names.
JETSONS = {
    "Orin": "jetson-orin",
    "Xavier": "jetson-xavier",
    "NVIDIA Tegra X2": "jetson-nano",
    "NVIDIA Tegra X1": "jetson-nano",
}


def likely_profile(facts: device_pb2.DeviceFacts) -> str:
    """Empty where none fits."""
    gpus = [accelerator.name for accelerator in facts.accelerators if accelerator.kind == NVIDIA]
    if facts.architecture == "amd64" and gpus:
        return "x86-cuda"
    if facts.architecture == "arm64":
        jetsons = (JETSONS[name] for name in gpus if name in JETSONS)
        boards = (profile for pattern, profile in BOARDS if re.search(pattern, facts.model))
        return next(jetsons, "") or next(boards, "") or PROFILES["arm64"]
    return PROFILES.get(facts.architecture, "")
