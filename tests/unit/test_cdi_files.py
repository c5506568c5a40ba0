"""Files of the Container Device Interface, read without a library, as a library reads them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runtime.facts.cdi import CdiDevice, cdi_devices, units

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,10}", fullmatch=True)
NODES = st.from_regex(r"/dev/[a-z]{1,8}(/[a-z]{1,5})?[0-9]{0,2}", fullmatch=True)
EDITS = st.fixed_dictionaries(
    {"deviceNodes": st.lists(NODES.map(lambda path: {"path": path, "permissions": "rw"}), max_size=3)},
    optional={
        "env": st.lists(st.just("A=b: c"), max_size=2),
        "hooks": st.lists(st.just({"hookName": "createContainer", "path": "/usr/bin/hook", "args": ["name: x"]})),
        "mounts": st.lists(st.just({"hostPath": "/dev/not-a-node", "containerPath": "/dev/inside"})),
        "name": st.just("not-the-name"),
    },
)
DEVICES = st.lists(st.fixed_dictionaries({"name": NAMES, "containerEdits": EDITS}), max_size=4)
DOCUMENTS = st.fixed_dictionaries(
    {"cdiVersion": st.just("0.5.0"), "kind": st.sampled_from(["nvidia.com/gpu", "acme-1.com/a_b"]), "devices": DEVICES},
    optional={"containerEdits": EDITS, "annotations": st.just({"name": "x", "devices": "y"})},
)


def planted(folder: Path, name: str, said: str) -> list[CdiDevice]:
    (folder / "etc/cdi").mkdir(parents=True, exist_ok=True)
    (folder / "etc/cdi" / name).write_text(said)
    return cdi_devices(folder)


def expected(document: dict[str, Any]) -> list[CdiDevice]:
    found = {
        device["name"]: tuple(node["path"] for node in device["containerEdits"]["deviceNodes"])
        for device in document["devices"]
    }
    return [CdiDevice(document["kind"], name, nodes) for name, nodes in found.items()]


@given(document=DOCUMENTS, indent=st.integers(2, 6), sort=st.booleans(), wide=st.booleans())
def test_what_tools_write_is_read_as_a_library_reads_it(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], indent: int, sort: bool, wide: bool
) -> None:
    said = yaml.safe_dump(document, indent=indent, sort_keys=sort, explicit_start=wide, width=1000 if wide else 40)
    folder = tmp_path_factory.mktemp("cdi")
    assert planted(folder, "a.yaml", said) == expected(document)
    assert planted(folder, "a.yaml", json.dumps(document)) == expected(document)


def test_what_people_write_is_read(tmp_path: Path) -> None:
    said = """\
# Ours.
cdiVersion: "0.6.0"
kind: 'acme.com/tpu'   # one for all

devices:
    -   name: first # the left one
        containerEdits:
            deviceNodes: [{path: /dev/tpu0, type: c}, {"path": "/dev/tpu1"}]
    # The other.
    -   containerEdits:
            deviceNodes:
              - {hostPath: /dev/outside, path: /dev/tpu2}
        name: "second"
"""
    assert planted(tmp_path, "ours.yaml", said) == [
        CdiDevice("acme.com/tpu", "first", ("/dev/tpu0", "/dev/tpu1")),
        CdiDevice("acme.com/tpu", "second", ("/dev/tpu2",)),
    ]


def test_files_of_the_running_system_come_before_those_of_the_installed_one(tmp_path: Path) -> None:
    document = {"kind": "acme.com/tpu", "devices": [{"name": "0"}]}
    planted(tmp_path, "old.json", json.dumps(document))
    (tmp_path / "run/cdi").mkdir(parents=True)
    (tmp_path / "run/cdi/new.json").write_text(
        json.dumps({**document, "devices": [{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/x"}]}}]})
    )
    (tmp_path / "run/cdi/notes.txt").write_text(json.dumps({**document, "kind": "acme.com/note"}))
    assert cdi_devices(tmp_path) == [CdiDevice("acme.com/tpu", "0", ("/dev/x",))]


@pytest.mark.parametrize(
    "said",
    ["", "kind: nvidia.com/gpu", "kind: nonsense\ndevices:\n- name: a", "[1, 2]", '"text"', "null", "devices: 5",
     '{"kind": {"a": 1}, "devices": {"name": 3}}', '{"kind": "a.b/c", "devices": [3, {"name": null}]}'],
)  # fmt: skip
def test_what_is_no_such_file_names_nothing(tmp_path: Path, said: str) -> None:
    assert planted(tmp_path, "a.yaml", said) == []


def test_names_of_one_accelerator_count_as_one() -> None:
    devices = [CdiDevice("a.b/c", name, nodes) for name, nodes in [
        ("0", ("/dev/x",)), ("uuid", ("/dev/x",)), ("1", ("/dev/y",)), ("all", ("/dev/x", "/dev/y")), ("bare", ()),
    ]]  # fmt: skip
    assert [device.name for device in units(devices)] == ["0", "1", "bare"]
    assert [device.name for device in units([CdiDevice("a.b/c", "all")])] == ["all"]
