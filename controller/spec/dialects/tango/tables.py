"""Words of TANGO's files, and what they are here. Names are compared as `plain_name` writes them."""

import re
from collections.abc import Mapping

# Names of targets, and the target profile. Of "x86" and "arm64" the accelerator decides which.
TARGETS: Mapping[str, str] = {
    "pc": "x86",
    "pc-web": "x86",
    "pc-server": "x86",
    "k8s": "x86",
    "k8s-jetson-nano": "jetson-nano",
    "jetson-agx-orin": "jetson-orin",
    "jetson-agx-xavier": "jetson-xavier",
    "jetson-nano": "jetson-nano",
    "odroid-n2": "odroid-n2",
    "odroid-m1": "odroid-m1",
    "rasberry-pi5": "raspberry-pi-5",
    "raspberry-pi5": "raspberry-pi-5",
    "raspberry-pi-5": "raspberry-pi-5",
    "comma-3x": "comma-3x",
}
# Kinds of service that say nothing of the device, and the kind of artifact.
PLAIN_TYPES: Mapping[str, str] = {"docker": "image", "native": "bundle", "compute-session": "image"}
_CLOUD = "runs in a public cloud, where Longshore has no devices"
_SERVER = "the nearest is PC_Server: a server, also a rented one, on which Longshore's agent is installed"
_ANDROID = "is an Android app, and Longshore's agents run on Linux"
_BOARD = "the nearest are boards with Linux that take tflite, such as Rasberry_Pi5 or Odroid_N2"
# What cannot be served: why, and what comes nearest.
UNSERVED: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("cloud", "kt-cloud", "gcp", "aws", "gcp-cloudrun", "aws-ecs", "ktc"), (_CLOUD, _SERVER)),
    **dict.fromkeys(("galaxy-s22", "galaxy-s23"), (_ANDROID, _BOARD)),
}
# Architectures, and the family of profiles.
ARCHITECTURES: Mapping[str, str] = {
    **dict.fromkeys(("x86", "x86-64", "amd64", "linux/amd64"), "x86"),
    **dict.fromkeys(("arm", "arm64", "aarch64", "linux/arm64"), "arm64"),
    **dict.fromkeys(("armv7", "linux/arm/v7"), "armv7"),
    # Written by a generator for Kubernetes in place of an architecture.
    **dict.fromkeys(("kuberentes", "kubernetes"), "x86"),
}
KUBERNETES = frozenset(("kuberentes", "kubernetes", "k8s", "k8s-jetson-nano"))
LINUX = re.compile(r"(ubuntu|debian|linux)([ -]?[0-9.]*)")
# Other systems: why not, and what comes nearest.
OTHER_SYSTEMS: Mapping[str, tuple[str, str]] = {
    "windows": ("Longshore's agents run on Linux", "the nearest is ubuntu, on the same PC"),
    "android": (
        "Longshore's agents run on Linux, not on Android",
        "the nearest is linux, on a board such as Rasberry_Pi5",
    ),
}
# Kind of accelerator of each profile that has one, and the words that mean it.
ACCELERATORS: Mapping[str, str] = {
    "x86-cuda": "nvidia.com/gpu",
    "jetson-orin": "nvidia.com/gpu",
    "jetson-xavier": "nvidia.com/gpu",
    "jetson-nano": "nvidia.com/gpu",
    "odroid-n2": "arm.com/mali",
    "odroid-m1": "rockchip.com/npu",
}
MEANT: Mapping[str, frozenset[str]] = {
    "nvidia.com/gpu": frozenset(("gpu", "cuda")),
    "arm.com/mali": frozenset(("gpu", "opencl")),
    "rockchip.com/npu": frozenset(("npu",)),
}
VENDORS: Mapping[str, frozenset[str]] = {
    "nvidia.com/gpu": frozenset(("nvidia",)),
    "arm.com/mali": frozenset(("arm", "mali")),
    "rockchip.com/npu": frozenset(("rockchip",)),
}
ACCELERATOR_WORDS = ("cpu", "gpu", "cuda", "opencl", "npu", "tpu")
# Engines that are runtimes of the same name; "onnx" is one where it serves the model file itself.
ENGINES = ("pytorch", "tensorrt", "tflite", "onnx", "openvino", "tvm", "acl", "rknn")


def plain_name(text: str) -> str:
    """A name as it is compared: without case, with "-", "_" and blanks alike."""
    return re.sub(r"[-_ ]+", "-", text.strip().lower())
