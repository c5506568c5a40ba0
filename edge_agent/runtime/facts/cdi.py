"""Devices of the Container Device Interface: the files in which a machine names them.

https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.runtime import kernel_files

FOLDERS = ("etc/cdi", "run/cdi", "var/run/cdi")
KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}/[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
PATH = re.compile(r"/dev/[!-~]{1,200}")
MOST_FILES, MOST_DEVICES = 64, 256
ALL = "all"
# One key with its value in a line of YAML, perhaps the first of an item; and device nodes, also in `{path: ...}`.
KEY = re.compile(r"""^(\s*)(-\s+)?["']?([A-Za-z]+)["']?\s*:(?:\s+(.*))?$""")
NODE = re.compile(r"""(?<![A-Za-z])["']?path["']?\s*:\s*["']?(/dev/[^\s,"'{}\[\]#]{1,200})""")


@dataclass(frozen=True)
class CdiDevice:
    """`nodes` are device nodes that a container gets with it, as far as they are its own."""

    kind: str
    name: str
    nodes: tuple[str, ...] = ()

    @property
    def qualified(self) -> str:
        return f"{self.kind}={self.name}"


def cdi_devices(root: Path) -> list[CdiDevice]:
    """All that can be read; a device that is named in a later folder takes the place of an earlier one."""
    found: dict[str, CdiDevice] = {}
    for folder in FOLDERS:
        for name in kernel_files.names(root / folder)[:MOST_FILES]:
            if name.endswith((".json", ".yaml")):
                for device in _read(kernel_files.text(root / folder / name)):
                    found[device.qualified] = device
    return list(found.values())[:MOST_DEVICES]


def _read(said: str) -> list[CdiDevice]:
    """JSON is YAML too, whatever the file is called."""
    try:
        kind, devices = _from_json(json.loads(said))
    except (ValueError, RecursionError):
        kind, devices = _from_yaml(said)
    if not KIND.fullmatch(kind):
        return []
    return [CdiDevice(kind, name, nodes) for name, nodes in devices if NAME.fullmatch(name)]


Found = tuple[str, list[tuple[str, tuple[str, ...]]]]


def _from_json(document: Any) -> Found:
    devices: list[tuple[str, tuple[str, ...]]] = []
    for device in _list(document, "devices"):
        nodes = (str(node.get("path")) for node in _list(device.get("containerEdits"), "deviceNodes"))
        if isinstance(name := device.get("name"), str):
            devices.append((name, tuple(node for node in nodes if PATH.fullmatch(node))))
    kind = document.get("kind") if isinstance(document, dict) else None
    return (kind if isinstance(kind, str) else ""), devices


def _list(holder: Any, key: str) -> list[dict[str, Any]]:
    found = holder.get(key) if isinstance(holder, dict) else None
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _from_yaml(said: str) -> Found:
    """Of the form in which all tools and people write it: block by block. Anything else has no devices here."""
    kind, block = "", ""
    devices: list[tuple[str, tuple[str, ...]]] = []
    item: list[str] = []
    indent = -1
    for line in [*said.splitlines(), "end:"]:
        key = KEY.match(line)
        dash = len(line) - len(line.lstrip()) if line.lstrip().startswith("- ") else -1
        if key and not key[1] and not key[2]:
            devices += _item(item)
            item, indent, block = [], -1, key[3]
            kind = _scalar(key[4]) if block == "kind" else kind
        elif block == "devices":
            if dash >= 0 and indent in (-1, dash):
                devices += _item(item)
                item, indent = [], dash
            item.append(line)
    return kind, devices


def _item(lines: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """One entry of `devices`: its own `name`, and the device nodes in it."""
    keys = [found for line in lines if (found := KEY.match(line))]
    if keys:
        column = min(_column(key) for key in keys)
        name = next((_scalar(key[4]) for key in keys if key[3] == "name" and _column(key) == column), "")
        yield name, tuple(node for node in NODE.findall("\n".join(lines)) if PATH.fullmatch(node))


def _column(key: "re.Match[str]") -> int:
    return len(key[1]) + len(key[2] or "")


def _scalar(value: str | None) -> str:
    """A plain or quoted text without the comment behind it."""
    value = (value or "").strip()
    if value[:1] in ("'", '"'):
        return value[1:].partition(value[0])[0]
    return re.sub(r"(^|\s)#.*", "", value).strip()


def units(devices: list[CdiDevice]) -> Iterator[CdiDevice]:
    """Of the devices of one kind those that stand for one accelerator each: by the first of its names, and without what
    stands for several."""
    seen: set[tuple[str, ...]] = set()
    several = {device.name for device in devices if len(devices) > 1 and device.name == ALL}
    for device in devices:
        if device.name not in several and (not device.nodes or device.nodes not in seen):
            seen.add(device.nodes)
            yield device
