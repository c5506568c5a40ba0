"""Which device should run what."""

from dataclasses import replace
from typing import Any

import pytest

from controller.deployments.model import LeftOut, Wish, WorkloadRow
from controller.deployments.placing import difference, select
from controller.devices.facts import abilities, merged
from controller.devices.model import Device, Presence
from controller.spec.model import MinimumSpec, TargetSpec
from longshore.v1 import device_pb2
from tests.support.rows import ARTIFACT


def device(name: str, **labels: str) -> Device:
    return Device(name, name, "x86-cpu", 1.0, labels)


def workload(device_id: str, revision: int = 1, wish: Wish = Wish.RUN) -> WorkloadRow:
    return WorkloadRow("dep-1", device_id, revision, wish, ARTIFACT, b"")


def test_a_device_needs_all_labels_of_a_target() -> None:
    devices = {"x86-cpu": [device("a", site="roof", line="1"), device("b", site="roof"), device("c")]}
    target = TargetSpec(profile="x86-cpu", labels={"site": "roof", "line": "1"})
    assert select((target,), devices).targets == {"a": "x86-cpu"}


def test_a_target_without_labels_takes_every_device_of_its_profile() -> None:
    devices = {"x86-cpu": [device("a"), device("b", site="roof")]}
    assert set(select((TargetSpec(profile="x86-cpu"),), devices).targets) == {"a", "b"}


def test_only_what_differs_is_touched() -> None:
    present = {"same": workload("same"), "old": workload("old"), "gone": workload("gone")}
    wished = {"same": workload("same"), "old": workload("old", revision=2), "new": workload("new", revision=2)}
    change = difference(wished, present)
    assert [row.device_id for row in change.put] == ["old", "new"]
    assert change.drop == ("gone",)


def test_what_is_on_its_way_out_is_not_dropped_again() -> None:
    leaving = replace(workload("gone"), wish=Wish.DELETE)
    assert difference({}, {"gone": leaving}).drop == ()


def facts(**told: Any) -> bytes:
    return device_pb2.DeviceFacts(**told).SerializeToString()


SMALL = facts(cpus=2, memory_bytes=2**30, capabilities=["artifact:image", "exec"])
LARGE = facts(cpus=8, memory_bytes=8 * 2**30, capabilities=["artifact:image"])
BARE = facts(cpus=8, memory_bytes=8 * 2**30, capabilities=["artifact:bundle"])


@pytest.mark.parametrize(
    ("minimum", "said"),
    [
        ({"cpu": 4.0}, "build.minimum.cpu asks for 4 cores, it has 2"),
        ({"memory": "2GiB"}, "build.minimum.memory asks for 2.00 GiB, it has 1.00 GiB"),
    ],
)
def test_a_device_that_is_too_small_is_left_out_and_it_is_said_why(minimum: dict[str, Any], said: str) -> None:
    devices = {"x86-cpu": [replace(device("a"), facts=SMALL), replace(device("b"), facts=LARGE)]}
    choice = select((TargetSpec(profile="x86-cpu"),), devices, MinimumSpec.model_validate(minimum))
    assert choice.targets == {"b": "x86-cpu"}
    assert choice.left_out == (LeftOut("a", "DeviceTooSmall", said),)


def test_a_device_that_has_told_nothing_has_nothing() -> None:
    (left,) = select((TargetSpec(profile="x86-cpu"),), {"x86-cpu": [device("a")]}, MinimumSpec(cpu=0.5)).left_out
    assert left.message == "build.minimum.cpu asks for 0.5 cores, it has an unknown number"
    assert select((TargetSpec(profile="x86-cpu"),), {"x86-cpu": [device("a")]}).left_out == ()


def gpus(count: int) -> bytes:
    told = device_pb2.DeviceFacts.FromString(LARGE)
    for _ in range(count):
        told.accelerators.add(kind="nvidia.com/gpu")
    told.accelerators.add(kind="arm.com/mali")
    return told.SerializeToString()


def test_accelerators_are_counted_by_label_else_as_they_were_found_else_by_profile() -> None:
    minimum = MinimumSpec(accelerators={"nvidia.com/gpu": 2})
    two = Device("two", "two", "x86-cuda", 1.0, {"nvidia.com/gpu": "2"}, facts=LARGE)
    found = Device("found", "found", "x86-cuda", 1.0, {}, facts=gpus(2))
    few = Device("few", "few", "x86-cuda", 1.0, {"nvidia.com/gpu": "1"}, facts=gpus(3))
    one = Device("one", "one", "x86-cuda", 1.0, {}, facts=LARGE)
    none = Device("none", "none", "x86-cpu", 1.0, {}, facts=gpus(0))
    targets = (TargetSpec(profile="x86-cuda"), TargetSpec(profile="x86-cpu"))
    choice = select(targets, {"x86-cuda": [two, found, few, one], "x86-cpu": [none]}, minimum)
    assert set(choice.targets) == {"two", "found"}
    assert [(left.device_name, left.reason) for left in choice.left_out] == [
        ("few", "NoAccelerator"),
        ("one", "NoAccelerator"),
        ("none", "NoAccelerator"),
    ]
    assert "it has 1" in choice.left_out[0].message
    assert "enroll it with the label nvidia.com/gpu=COUNT" in choice.left_out[2].message


def test_a_device_that_has_the_revision_keeps_it_although_it_says_that_it_has_less() -> None:
    minimum = MinimumSpec(accelerators={"arm.com/mali": 1}, cpu=4.0)
    lost = replace(device("lost"), facts=SMALL)
    fresh = replace(device("fresh"), facts=SMALL)
    choice = select((TargetSpec(profile="x86-cpu"),), {"x86-cpu": [lost, fresh]}, minimum, {"lost"})
    assert set(choice.targets) == {"lost"}
    assert [left.device_name for left in choice.left_out] == ["fresh"]
    bare = replace(device("lost"), facts=BARE)
    assert select((TargetSpec(profile="x86-cpu"),), {"x86-cpu": [bare]}, minimum, {"lost"}).targets == {}


def test_lists_of_facts_are_what_was_told_last() -> None:
    mali, hailo = (device_pb2.Accelerator(kind=kind) for kind in ("arm.com/mali", "hailo.ai/npu"))
    disk = device_pb2.Disk(path="/")
    first = device_pb2.DeviceFacts(
        architecture="arm64", backend="podman 5.0", capabilities=["exec", "tty"],
        accelerators=[mali, hailo], disks=[disk],
    )  # fmt: skip
    known = b""
    for _ in range(3):
        known = merged(known, first)
    assert device_pb2.DeviceFacts.FromString(known) == first
    # The agent has started again, its backend has not answered yet, and a stick was pulled out.
    again = device_pb2.DeviceFacts(architecture="arm64", accelerators=[mali], disks=[disk])
    now = device_pb2.DeviceFacts.FromString(merged(known, again))
    assert (now.backend, list(now.capabilities)) == ("podman 5.0", ["exec", "tty"])
    assert dict(abilities(now.SerializeToString()).accelerators) == {"arm.com/mali": 1}
    assert merged(known, device_pb2.DeviceFacts()) == known


def test_bundles_go_to_bare_metal_and_images_to_podman() -> None:
    devices = {"x86-cpu": [replace(device("podman"), facts=LARGE), replace(device("bare"), facts=BARE)]}
    image, bundle = TargetSpec(profile="x86-cpu"), TargetSpec(profile="x86-cpu", artifact="bundle")
    assert select((bundle, image), devices).targets == {"podman": "x86-cpu", "bare": "x86-cpu.bundle"}
    (left,) = select((bundle,), devices).left_out
    assert left == LeftOut("podman", "NoSuchBackend", "it does not run bundles (it runs images)")
    (left,) = select((image,), devices).left_out
    assert left == LeftOut("bare", "NoSuchBackend", "it does not run images (it runs bundles)")


def test_a_device_that_has_not_told_what_it_runs_is_taken_to_run_images() -> None:
    devices = {"x86-cpu": [device("silent")]}
    assert select((TargetSpec(profile="x86-cpu"),), devices).targets == {"silent": "x86-cpu"}
    (left,) = select((TargetSpec(profile="x86-cpu", artifact="bundle"),), devices).left_out
    assert left == LeftOut("silent", "NoSuchBackend", "it does not run bundles (what it runs is not known yet)")


def test_a_device_that_runs_both_gets_either() -> None:
    both = replace(device("both"), facts=facts(capabilities=["artifact:bundle", "artifact:image"]))
    for artifact in ("image", "bundle"):
        target = TargetSpec(profile="x86-cpu", artifact=artifact)
        assert set(select((target,), {"x86-cpu": [both]}).targets) == {"both"}


def test_a_target_with_replicas_takes_so_many_and_who_runs_it_keeps_it() -> None:
    fleet = [device("a"), replace(device("b"), presence=Presence.ONLINE), device("c"), device("d")]
    two = TargetSpec(profile="x86-cpu", replicas=2)
    assert set(select((two,), {"x86-cpu": fleet}).targets) == {"b", "a"}
    assert set(select((two,), {"x86-cpu": fleet}, having={"c", "d"}).targets) == {"c", "d"}
    assert set(select((two,), {"x86-cpu": fleet}, having={"d"}).targets) == {"d", "b"}
    assert set(select((two,), {"x86-cpu": fleet}, holding={"a", "d"}, having={"a", "b", "d"}).targets) == {"a", "d"}


def test_a_target_that_has_its_replicas_leaves_the_others_to_the_next() -> None:
    targets = (TargetSpec(profile="x86-cpu", replicas=1), TargetSpec(profile="x86-cpu", artifact="bundle", replicas=1))
    fleet = [replace(device("a"), facts=SMALL), replace(device("b"), facts=LARGE), replace(device("c"), facts=BARE)]
    choice = select(targets, {"x86-cpu": fleet})
    assert choice.targets == {"a": "x86-cpu", "c": "x86-cpu.bundle"}
    assert choice.left_out == ()


def test_a_target_that_gets_fewer_than_it_asks_for_says_so_and_who_is_not_fit() -> None:
    fleet = [replace(device("a"), facts=SMALL), replace(device("b"), facts=LARGE)]
    choice = select((TargetSpec(profile="x86-cpu", replicas=2),), {"x86-cpu": fleet}, MinimumSpec(cpu=4.0))
    assert set(choice.targets) == {"b"}
    short, unfit = choice.left_out
    assert (short.device_name, short.reason) == ("targets[0]", "NotEnoughDevices")
    assert short.message == "asks for 2 devices, and 1 can run it"
    assert unfit.device_name == "a"
