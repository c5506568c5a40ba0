"""What an agent finds out about machines, over files of several; see `tests/support/recorded_machines.py`."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.builds.targets import load_profiles
from edge_agent.runtime.disk import Space
from edge_agent.runtime.facts import device_facts, likely_profile, profiles, telling
from edge_agent.runtime.facts.accelerators import accelerators
from edge_agent.runtime.facts.found import Accelerator
from edge_agent.runtime.facts.nvml import Gpu
from edge_agent.runtime.facts.use import busy_percent
from longshore.v1 import device_pb2
from tests.support.recorded_machines import (
    BARE_SERVER,
    JETSON_ORIN,
    MACHINES,
    ODROID_M1,
    PC_WITH_TWO_GPUS,
    RASPBERRY_PI_5,
    RecordedMachine,
)

GIB = 2**30


def facts_of(machine: RecordedMachine, root: Path) -> device_pb2.DeviceFacts:
    return device_facts("0.2", machine.plant(root), uname_machine=machine.uname)


def found_on(machine: RecordedMachine, root: Path) -> list[tuple[str, str, list[str], str]]:
    found = facts_of(machine, root).accelerators
    return [(one.kind, one.name, list(one.devices), one.driver) for one in found]


@pytest.mark.parametrize(
    ("machine", "architecture", "os", "kernel", "cpus", "model"),
    [
        (
            JETSON_ORIN, "arm64", "Ubuntu 22.04.5 LTS", "5.15.148-tegra", 6,
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        ),
        (
            RASPBERRY_PI_5, "arm64", "Debian GNU/Linux 12 (bookworm)", "6.6.51+rpt-rpi-2712", 4,
            "Raspberry Pi 5 Model B Rev 1.0",
        ),
        (ODROID_M1, "arm64", "Ubuntu 20.04.6 LTS", "4.19.219-odroid-arm64", 4, "Hardkernel ODROID-M1"),
        (
            PC_WITH_TWO_GPUS, "amd64", "Ubuntu 24.04.1 LTS", "6.8.0-49-generic", 32,
            "ASUSTeK COMPUTER INC. ProArt X670E-CREATOR WIFI",
        ),
        (BARE_SERVER, "amd64", "Debian GNU/Linux 12 (bookworm)", "6.18.44", 2, ""),
    ],
    ids=MACHINES,
)  # fmt: skip
def test_the_machine_is_told(
    tmp_path: Path, machine: RecordedMachine, architecture: str, os: str, kernel: str, cpus: int, model: str
) -> None:
    facts = facts_of(machine, tmp_path)
    assert (facts.architecture, facts.os, facts.kernel) == (architecture, os, kernel)
    assert (facts.cpus, facts.model, facts.agent_version) == (cpus, model, "0.2")
    assert GIB < facts.memory_bytes < 100 * GIB


def test_the_gpu_of_a_jetson_is_told_by_its_chip_and_release(tmp_path: Path) -> None:
    names = ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]
    assert found_on(JETSON_ORIN, tmp_path) == [("nvidia.com/gpu", "Orin", names, "R36.4.3")]


def test_a_jetson_without_a_cdi_file_is_told_by_its_nodes(tmp_path: Path) -> None:
    machine = replace(JETSON_ORIN, files={k: v for k, v in JETSON_ORIN.files.items() if "cdi" not in k})
    ((_, _, devices, _),) = found_on(machine, tmp_path)
    assert devices == ["/dev/nvhost-gpu", "/dev/nvgpu", "/dev/nvmap"]


def test_a_coral_stick_is_told_before_and_after_its_first_use(tmp_path: Path) -> None:
    stick = ("coral.ai/edgetpu", "Coral USB Accelerator", ["/dev/bus/usb/004/002"], "")
    assert found_on(RASPBERRY_PI_5, tmp_path) == [stick]
    place = "sys/bus/usb/devices/4-1"
    used = {**RASPBERRY_PI_5.files, f"{place}/idVendor": "18d1\n", f"{place}/idProduct": "9302\n"}
    assert found_on(replace(RASPBERRY_PI_5, files=used), tmp_path) == [stick]


def test_mali_and_npu_of_a_board_are_told(tmp_path: Path) -> None:
    assert found_on(ODROID_M1, tmp_path) == [
        ("arm.com/mali", "Mali-G52", ["/dev/mali0"], ""),
        ("rockchip.com/npu", "RK3568 NPU", ["rockchip.com/npu=all"], "0.9.2"),
    ]


def test_a_board_whose_kernel_has_no_driver_for_its_npu_has_none(tmp_path: Path) -> None:
    files = {k: v for k, v in ODROID_M1.files.items() if "npu" not in k and "RKNPU" not in k and "renderD129" not in k}
    kinds = [kind for kind, *_ in found_on(replace(ODROID_M1, files=files), tmp_path)]
    # Its CDI file is still there, and names what is not.
    assert kinds == ["arm.com/mali"]


def test_each_of_several_gpus_has_the_names_that_give_its_own_node(tmp_path: Path) -> None:
    first, second = found_on(PC_WITH_TWO_GPUS, tmp_path)
    uuid = "nvidia.com/gpu=GPU-11111111-2222-3333-4444-555555555555"
    assert first == (
        "nvidia.com/gpu",
        "NVIDIA GeForce RTX 4090",
        ["nvidia.com/gpu=0", uuid, "nvidia.com/gpu=all"],
        "550.54.15",
    )
    assert second == ("nvidia.com/gpu", "NVIDIA RTX A2000", ["nvidia.com/gpu=1", "nvidia.com/gpu=all"], "550.54.15")


def test_what_the_driver_tells_of_gpus_completes_what_files_tell(tmp_path: Path) -> None:
    told = [Gpu("NVIDIA RTX A2000 12GB", 0, 12 * GIB, 0, "550.54.15", 0)]
    first, second = accelerators(PC_WITH_TWO_GPUS.plant(tmp_path), told)
    assert (first.name, first.memory_bytes) == ("NVIDIA GeForce RTX 4090", 0)
    assert (second.name, second.memory_bytes) == ("NVIDIA RTX A2000 12GB", 12 * GIB)


def test_gpus_that_only_the_driver_tells_of_are_told(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    told = [Gpu("NVIDIA T4", 0, 16 * GIB, 0, "535.1", None), Gpu("NVIDIA T4", -1, 16 * GIB, 0, "535.1", None)]
    assert [(one.devices, one.memory_bytes) for one in accelerators(tmp_path, told)] == [
        (("/dev/nvidia0",), 16 * GIB),
        ((), 16 * GIB),
    ]


def test_hailo_and_coral_cards_are_told_by_their_drivers(tmp_path: Path) -> None:
    machine = RecordedMachine(
        "aarch64",
        {
            "dev/hailo0": "",
            "sys/class/hailo_chardev/hailo0/device_id": "1e60:2864",
            "sys/module/hailo_pci/version": "4.20.0\n",
            "dev/apex_0": "",
            "sys/class/apex/apex_0/driver_version": "1.0\n",
        },
    )
    assert found_on(machine, tmp_path) == [
        ("hailo.ai/npu", "Hailo-8", ["/dev/hailo0"], "4.20.0"),
        ("coral.ai/edgetpu", "Coral Edge TPU", ["/dev/apex_0"], "1.0"),
    ]


def test_a_bare_server_has_no_accelerator(tmp_path: Path) -> None:
    assert found_on(BARE_SERVER, tmp_path) == []


def test_an_accelerator_that_only_a_cdi_file_knows_is_told_once_while_its_node_is_there(tmp_path: Path) -> None:
    device = '{"name": "%s", "containerEdits": {"deviceNodes": [{"path": "/dev/%s"}]}}'
    names = ",".join(device % pair for pair in [("0", "tpu0"), ("first", "tpu0"), ("1", "tpu1"), ("gone", "tpu2")])
    said = f'{{"cdiVersion": "0.6.0", "kind": "acme.com/tpu", "devices": [{names}]}}'
    machine = RecordedMachine("x86_64", {"var/run/cdi/acme.json": said, "dev/tpu0": "", "dev/tpu1": ""})
    assert [devices for _, _, devices, _ in found_on(machine, tmp_path)] == [["acme.com/tpu=0"], ["acme.com/tpu=1"]]


@pytest.mark.parametrize("profile", MACHINES)
def test_the_profile_of_a_machine_is_proposed(tmp_path: Path, profile: str) -> None:
    assert likely_profile(facts_of(MACHINES[profile], tmp_path)) == profile


@pytest.mark.parametrize(
    ("architecture", "model", "gpu", "profile"),
    [
        ("arm64", "Connect Tech carrier", "Xavier", "jetson-xavier"),
        ("arm64", "NVIDIA Jetson Nano Developer Kit", "NVIDIA Tegra X1", "jetson-nano"),
        ("arm64", "Raspberry Pi Compute Module 5 Rev 1.0", "", "raspberry-pi-5"),
        ("arm64", "Raspberry Pi 4 Model B Rev 1.4", "", "arm64-cpu"),
        ("arm64", "Hardkernel ODROID-M1S", "", "arm64-cpu"),
        ("arm64", "Hardkernel ODROID-N2Plus", "", "odroid-n2"),
        ("arm64", "comma tizi", "", "comma-3x"),
        ("arm64", "NVIDIA GH200", "NVIDIA GH200 480GB", "arm64-cpu"),
        ("arm", "Raspberry Pi 5 Model B", "", "armv7-cpu"),
        ("s390x", "", "", ""),
    ],
)
def test_boards_are_known_by_their_names(architecture: str, model: str, gpu: str, profile: str) -> None:
    facts = device_pb2.DeviceFacts(architecture=architecture, model=model)
    if gpu:
        facts.accelerators.add(kind="nvidia.com/gpu", name=gpu)
    assert likely_profile(facts) == profile


def test_every_profile_that_can_be_proposed_exists() -> None:
    proposed = {*profiles.PROFILES.values(), *profiles.JETSONS.values(), *(name for _, name in profiles.BOARDS)}
    # There is nothing to build for an x86-cuda machine by another name.
    assert proposed | {"x86-cuda"} <= load_profiles().keys()


def test_disks_are_told_with_the_free_space_rounded_and_steady(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = 64 * 2**20
    told = None
    seen = []
    for free in (3 * step + 5, 2 * step + 6, 4 * step, 4 * step - 1, 2 * step):
        monkeypatch.setattr(telling, "spaces", lambda _, free=free: [Space(Path("/data"), 10 * step, free)])
        told = device_facts("0.2", tmp_path, folders=[tmp_path], before=told)
        (disk,) = told.disks
        assert (disk.path, disk.size_bytes) == ("/data", 10 * step)
        seen.append(disk.free_bytes // step)
    assert seen == [3, 2, 4, 3, 2]


@pytest.mark.parametrize(
    ("kind", "said", "percent"),
    [
        ("nvidia.com/gpu", "337\n", 33),
        ("nvidia.com/gpu", "1000\n", 100),
        ("rockchip.com/npu", "NPU load:  Core0: 30%, Core1:  0%, Core2:  0%,\n", 10),
        ("rockchip.com/npu", "NPU load:  21%\n", 21),
        ("rockchip.com/npu", "7@1000000000Hz\n", 7),
        ("arm.com/mali", "45@800000000Hz", 45),
        ("arm.com/mali", "57", 57),
        ("arm.com/mali", "", None),
        ("arm.com/mali", "busy", None),
    ],
)
def test_load_files_of_drivers_are_understood(tmp_path: Path, kind: str, said: str, percent: int | None) -> None:
    (tmp_path / "load").write_text(said)
    assert busy_percent(Accelerator(kind, load=tmp_path / "load")) == percent


def test_the_load_of_boards_is_found(tmp_path: Path) -> None:
    def loads(machine: RecordedMachine, name: str) -> list[int | None]:
        return [busy_percent(one) for one in accelerators(machine.plant(tmp_path / name))]

    assert loads(JETSON_ORIN, "jetson") == [33]
    assert loads(ODROID_M1, "odroid") == [45, 21]


ANY = st.binary(max_size=300) | st.sampled_from(
    [b"[" * 100_000, b"9" * 5000, b"0-99999\n", b'{"kind": "\\ud800/x", "devices": [{"name": 1}]}', b"\xff\xfe: \0"]
)


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@given(data=st.data())
def test_whatever_bytes_files_hold_there_are_facts_that_can_be_sent(
    machine: RecordedMachine, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = machine.plant(Path(folder))
        for name in data.draw(st.sets(st.sampled_from(sorted(machine.files)), min_size=1)):
            (root / name).write_bytes(data.draw(ANY))
        facts = device_facts("0.2", root, uname_machine=machine.uname)
        sent = device_pb2.DeviceFacts.FromString(facts.SerializeToString())
        assert len(facts.SerializeToString()) < 20_000
        likely_profile(sent)
        for one in accelerators(root):
            assert busy_percent(one) in (None, *range(101))
