"""Files of machines as an agent finds them there, to be put below a folder that stands for the machine's root.

The bare server was recorded on a virtual machine. All others were written from what their makers document and their
drivers' sources print, and were not recorded on the hardware.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CORES_4, CORES_6, CORES_8 = "0-3\n", "0-5\n", "0-7\n"


@dataclass(frozen=True)
class RecordedMachine:
    """`uname` is its machine name; paths are relative to the root."""

    uname: str
    files: Mapping[str, str | bytes]

    def plant(self, root: Path) -> Path:
        """Afterwards the files are below `root`, which is given back."""
        for name, content in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root


def release(name: str) -> str:
    return f'NAME="{name.split()[0]}"\nPRETTY_NAME="{name}"\nID={name.split()[0].lower()}\n'


def memory(kib: int) -> str:
    return f"MemTotal:       {kib} kB\nMemFree:          123456 kB\nMemAvailable:    {kib // 2} kB\n"


# Files of the release and the device tree as in NVIDIA's Jetson Linux 36.4; the CDI file as `nvidia-ctk cdi generate
# --mode=csv` writes it.
JETSON_ORIN = RecordedMachine(
    "aarch64",
    {
        "etc/os-release": release("Ubuntu 22.04.5 LTS"),
        "etc/nv_tegra_release": (
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
            "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n"
        ),
        "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
        "proc/meminfo": memory(7802916),
        "proc/device-tree/model": b"NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
        "proc/device-tree/compatible": (
            b"nvidia,p3768-0000+p3767-0005-super\0nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0"
        ),
        "sys/devices/system/cpu/online": CORES_6,
        "sys/class/devfreq/17000000.gpu/device/load": "337\n",
        "dev/nvhost-gpu": "",
        "dev/nvmap": "",
        "dev/nvgpu/igpu0/ctrl": "",
        # Of the display's driver; NVML knows little of this GPU.
        "dev/nvidiactl": "",
        "dev/nvidia0": "",
        "etc/cdi/nvidia.yaml": """\
---
cdiVersion: 0.5.0
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-ctk
    - hook
    - update-ldcache
    hookName: createContainer
    path: /usr/bin/nvidia-ctk
  mounts:
  - containerPath: /usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1.1
    hostPath: /usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1.1
    options:
    - ro
    - nosuid
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvhost-gpu
    - path: /dev/nvmap
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvhost-gpu
    - path: /dev/nvmap
  name: all
kind: nvidia.com/gpu
""",
    },
)

# The device tree of the Raspberry Pi kernel; the USB accelerator as coral.ai describes it, before its first use.
RASPBERRY_PI_5 = RecordedMachine(
    "aarch64",
    {
        "etc/os-release": release("Debian GNU/Linux 12 (bookworm)"),
        "proc/sys/kernel/osrelease": "6.6.51+rpt-rpi-2712\n",
        "proc/meminfo": memory(8256224),
        "proc/device-tree/model": b"Raspberry Pi 5 Model B Rev 1.0\0",
        "proc/device-tree/compatible": b"raspberrypi,5-model-b\0brcm,bcm2712\0",
        "sys/devices/system/cpu/online": CORES_4,
        "sys/bus/usb/devices/usb1/idVendor": "1d6b\n",
        "sys/bus/usb/devices/usb1/idProduct": "0002\n",
        "sys/bus/usb/devices/4-1/idVendor": "1a6e\n",
        "sys/bus/usb/devices/4-1/idProduct": "089a\n",
        "sys/bus/usb/devices/4-1/busnum": "4\n",
        "sys/bus/usb/devices/4-1/devnum": "2\n",
        "dev/bus/usb/004/002": "",
    },
)

# Hardkernel's kernel 4.19 with Rockchip's RKNPU and ARM's Mali drivers.
ODROID_M1 = RecordedMachine(
    "aarch64",
    {
        "etc/os-release": release("Ubuntu 20.04.6 LTS"),
        "proc/sys/kernel/osrelease": "4.19.219-odroid-arm64\n",
        "proc/meminfo": memory(7880312),
        "proc/device-tree/model": b"Hardkernel ODROID-M1\0",
        "proc/device-tree/compatible": b"rockchip,rk3568-odroid-m1\0rockchip,rk3568\0",
        "sys/devices/system/cpu/online": CORES_4,
        "sys/bus/platform/drivers/RKNPU/bind": "",
        "sys/bus/platform/drivers/RKNPU/fde40000.npu/uevent": "DRIVER=RKNPU\n",
        "sys/class/drm/card0/device/uevent": "DRIVER=rockchip-drm\n",
        "sys/class/drm/renderD128/device/uevent": "DRIVER=rockchip-drm\n",
        "sys/class/drm/renderD129/device/uevent": "DRIVER=RKNPU\nOF_NAME=npu\n",
        "sys/kernel/debug/rknpu/version": "RKNPU driver: v0.9.2\n",
        "sys/kernel/debug/rknpu/load": "NPU load:  21%\n",
        "sys/class/devfreq/fde40000.npu/load": "0@600000000Hz\n",
        "sys/class/devfreq/fde60000.gpu/load": "45@800000000Hz\n",
        "sys/class/misc/mali0/device/gpuinfo": "Mali-G52 1 cores r1p0 0x74021000\n",
        "dev/dri/renderD128": "",
        "dev/dri/renderD129": "",
        "dev/mali0": "",
        "etc/cdi/rockchip.yaml": """\
cdiVersion: "0.5.0"
kind: rockchip.com/npu
devices:
  - name: all
    containerEdits:
      deviceNodes:
        - path: /dev/dri/renderD129
      mounts:
        - {hostPath: /usr/lib/librknnrt.so, containerPath: /usr/lib/librknnrt.so, options: [ro, bind]}
""",
    },
)

# /proc of NVIDIA's driver 550, and the CDI file of its container toolkit; the cards are numbered against their places.
PC_WITH_TWO_GPUS = RecordedMachine(
    "x86_64",
    {
        "etc/os-release": release("Ubuntu 24.04.1 LTS"),
        "proc/sys/kernel/osrelease": "6.8.0-49-generic\n",
        "proc/meminfo": memory(65746516),
        "sys/class/dmi/id/sys_vendor": "ASUS\n",
        "sys/class/dmi/id/product_name": "System Product Name\n",
        "sys/class/dmi/id/board_vendor": "ASUSTeK COMPUTER INC.\n",
        "sys/class/dmi/id/board_name": "ProArt X670E-CREATOR WIFI\n",
        "sys/devices/system/cpu/online": "0-31\n",
        "proc/driver/nvidia/version": (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs-builder@U16)  "
            "Tue Mar  5 22:15:33 UTC 2024\nGCC version:  gcc version 13.2.0 (Ubuntu 13.2.0-23ubuntu4)\n"
        ),
        "proc/driver/nvidia/gpus/0000:01:00.0/information": (
            "Model: \t\t NVIDIA GeForce RTX 4090\nIRQ:   \t\t 153\nGPU UUID: \t "
            "GPU-11111111-2222-3333-4444-555555555555\nVideo BIOS: \t 95.02.18.80.5f\nBus Type: \t PCIe\n"
            "DMA Size: \t 47 bits\nDMA Mask: \t 0x7fffffffffff\nBus Location: \t 0000:01:00.0\nDevice Minor: \t 1\n"
            "GPU Firmware: \t 550.54.15\nGPU Excluded:\t No\n"
        ),
        "proc/driver/nvidia/gpus/0000:05:00.0/information": (
            "Model: \t\t NVIDIA RTX A2000\nIRQ:   \t\t 154\nGPU UUID: \t GPU-????????-????-????-????-????????????\n"
            "Bus Location: \t 0000:05:00.0\nDevice Minor: \t 0\nGPU Excluded:\t No\n"
        ),
        "dev/nvidiactl": "",
        "dev/nvidia0": "",
        "dev/nvidia1": "",
        "dev/nvidia-uvm": "",
        "etc/cdi/nvidia.yaml": """\
---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
    - name: "0"
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia1
            - path: /dev/dri/card1
    - name: "1"
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia0
    - name: GPU-11111111-2222-3333-4444-555555555555
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia1
            - path: /dev/dri/card1
    - name: all
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia0
            - path: /dev/nvidia1
            - path: /dev/dri/card1
containerEdits:
    env:
        - NVIDIA_VISIBLE_DEVICES=void
    deviceNodes:
        - path: /dev/nvidia-uvm
        - path: /dev/nvidiactl
    hooks:
        - hookName: createContainer
          path: /usr/bin/nvidia-cdi-hook
          args:
            - nvidia-cdi-hook
            - update-ldcache
""",
    },
)

BARE_SERVER = RecordedMachine(
    "x86_64",
    {
        "etc/os-release": release("Debian GNU/Linux 12 (bookworm)"),
        "proc/sys/kernel/osrelease": "6.18.44\n",
        "proc/meminfo": memory(24652224),
        "sys/devices/system/cpu/online": "0-1\n",
        "dev/null": "",
        "dev/zero": "",
    },
)

MACHINES: Mapping[str, RecordedMachine] = {
    "jetson-orin": JETSON_ORIN,
    "raspberry-pi-5": RASPBERRY_PI_5,
    "odroid-m1": ODROID_M1,
    "x86-cuda": PC_WITH_TWO_GPUS,
    "x86-cpu": BARE_SERVER,
}
