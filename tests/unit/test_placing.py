"""Which device should run what."""

from dataclasses import replace

from controller.deployments.model import Wish, WorkloadRow
from controller.deployments.placing import difference, select
from controller.devices.model import Device
from controller.spec.model import TargetSpec
from tests.support.rows import ARTIFACT


def device(name: str, **labels: str) -> Device:
    return Device(name, name, "x86-cpu", 1.0, labels)


def workload(device_id: str, revision: int = 1, wish: Wish = Wish.RUN) -> WorkloadRow:
    return WorkloadRow("dep-1", device_id, revision, wish, ARTIFACT, b"")


def test_a_device_needs_all_labels_of_a_target() -> None:
    devices = {"x86-cpu": [device("a", site="roof", line="1"), device("b", site="roof"), device("c")]}
    target = TargetSpec(profile="x86-cpu", labels={"site": "roof", "line": "1"})
    assert select((target,), devices) == {"a": "x86-cpu"}


def test_a_target_without_labels_takes_every_device_of_its_profile() -> None:
    devices = {"x86-cpu": [device("a"), device("b", site="roof")]}
    assert set(select((TargetSpec(profile="x86-cpu"),), devices)) == {"a", "b"}


def test_only_what_differs_is_touched() -> None:
    present = {"same": workload("same"), "old": workload("old"), "gone": workload("gone")}
    wished = {"same": workload("same"), "old": workload("old", revision=2), "new": workload("new", revision=2)}
    change = difference(wished, present)
    assert [row.device_id for row in change.put] == ["old", "new"]
    assert change.drop == ("gone",)


def test_what_is_on_its_way_out_is_not_dropped_again() -> None:
    leaving = replace(workload("gone"), wish=Wish.DELETE)
    assert difference({}, {"gone": leaving}).drop == ()
