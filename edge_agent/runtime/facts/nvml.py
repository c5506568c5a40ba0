"""NVIDIA's GPUs as their driver's library tells of them (NVML), which is loaded only when this is asked.

https://docs.nvidia.com/deploy/nvml-api/ has the calls and their structures. Blocks, for seconds where nobody has used a
GPU yet: for threads.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge_agent.runtime.kernel_files import clean

LIBRARY = "libnvidia-ml.so.1"
LONGEST_TEXT = 96
MOST_GPUS = 64


@dataclass(frozen=True)
class Gpu:
    """`minor` is the number of its device node, -1 where that is not told; `busy_percent` None where nobody counts."""

    name: str
    minor: int
    memory_bytes: int
    used_bytes: int
    driver: str
    busy_percent: int | None


def read_gpus(library: str = LIBRARY) -> list[Gpu]:
    """Those that the driver knows; none where there is no library, or where it fails."""
    import ctypes

    try:
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2() != 0:
            return []
    except (OSError, AttributeError):
        return []
    try:
        return list(_gpus(nvml))
    except AttributeError:
        # An old library lacks a call.
        return []
    finally:
        with contextlib.suppress(AttributeError):
            nvml.nvmlShutdown()


def _gpus(nvml: Any) -> Iterator[Gpu]:
    import ctypes

    driver = _text(nvml.nvmlSystemGetDriverVersion)
    for index in range(min(MOST_GPUS, _number(nvml.nvmlDeviceGetCount_v2) or 0)):
        device = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)) == 0:
            minor = _number(nvml.nvmlDeviceGetMinorNumber, device)
            memory = (ctypes.c_ulonglong * 3)()
            known = nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) == 0
            yield Gpu(
                name=_text(nvml.nvmlDeviceGetName, device),
                minor=-1 if minor is None else minor,
                # Total, free, used.
                memory_bytes=memory[0] if known else 0,
                used_bytes=memory[2] if known else 0,
                driver=driver,
                busy_percent=_busy(nvml, device),
            )


def _busy(nvml: Any, device: Any) -> int | None:
    import ctypes

    # Of the processors, of the memory.
    rates = (ctypes.c_uint * 2)()
    told = nvml.nvmlDeviceGetUtilizationRates(device, ctypes.byref(rates)) == 0
    return min(100, rates[0]) if told else None


def _text(call: Any, *subject: Any) -> str:
    import ctypes

    buffer = ctypes.create_string_buffer(LONGEST_TEXT)
    told = call(*subject, buffer, ctypes.c_uint(LONGEST_TEXT)) == 0
    return clean(buffer.value.decode(errors="replace")) if told else ""


def _number(call: Any, *subject: Any) -> int | None:
    import ctypes

    number = ctypes.c_uint()
    return number.value if call(*subject, ctypes.byref(number)) == 0 else None
