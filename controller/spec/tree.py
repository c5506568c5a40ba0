"""YAML as a tree that knows where each thing stands, read safely.

No object is ever constructed: scalars follow the core schema of YAML 1.2 (so `no`, `on` and `0123` are text), tags are
refused, and aliases are counted as if written out, so that a small file cannot become a large one.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from controller.errors import Problem

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000

Path = tuple[str | int, ...]

_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_RADIX = re.compile(r"0x[0-9a-fA-F]{1,15}|0o[0-7]{1,20}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,3})?")
# What old writers of Python's YAML put before a list.
PYTHON_TUPLE = "tag:yaml.org,2002:python/tuple"
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# The C parser is some ten times faster; both yield the same events.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Unreadable(Exception):
    """The text is not YAML that can be read on; `problem` says where and why."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.problem = Problem("", line, column, message)


@dataclass(frozen=True)
class Place:
    """A place in the file; line and column count from 1."""

    line: int
    column: int


class WrittenFloat(float):
    """A number that remembers how it was written: `1.10` as an environment value stays "1.10"."""

    written: str

    def __str__(self) -> str:
        return self.written


@dataclass(frozen=True)
class Scalar:
    place: Place
    value: str | int | float | bool | None
    text: str
    size: int = 1
    depth: int = 1


@dataclass
class Branch:
    """A list (keys are positions) or a mapping (keys as written), with each entry's key place and node."""

    place: Place
    is_mapping: bool
    entries: dict[str | int, tuple[Place, "Node"]] = field(default_factory=dict)
    size: int = 1
    depth: int = 1

    def add(self, key: str | int, place: Place, node: "Node") -> None:
        self.entries[key] = (place, node)
        self.size += node.size
        self.depth = max(self.depth, node.depth + 1)


Node = Scalar | Branch


@dataclass(frozen=True)
class Tree:
    """A file: its root, and what is wrong in it although it could be read. `tuples`: paths of lists that are tagged as
    tuples of Python, and were read as lists."""

    root: Node
    problems: tuple[Problem, ...]
    tuples: tuple[Path, ...] = ()

    def find(self, path: Sequence[str | int]) -> tuple[Path, Place]:
        """The longest beginning of `path` that exists, and where its value stands."""
        node, place, found = self.root, self.root.place, 0
        for key in path:
            if not isinstance(node, Branch) or key not in node.entries:
                break
            place, node = node.entries[key][0], node.entries[key][1]
            found += 1
            place = node.place if isinstance(node, Scalar) else place
        return tuple(path[:found]), place

    def key_place(self, path: Sequence[str | int]) -> Place:
        """Where the key of an existing path stands."""
        node = self.node(path[:-1])
        if isinstance(node, Branch) and path and path[-1] in node.entries:
            return node.entries[path[-1]][0]
        return self.find(path)[1]

    def node(self, path: Sequence[str | int]) -> Node | None:
        node: Node = self.root
        for key in path:
            if not isinstance(node, Branch) or key not in node.entries:
                return None
            node = node.entries[key][1]
        return node


def tag_refusal(tag: str) -> str:
    return f"the tag {tag} is not allowed; write the plain value"


def path_text(path: Sequence[str | int]) -> str:
    """A path as people read it: `build.packages.pypi[2]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def plain(node: Node) -> object:
    """The tree as dicts, lists and scalars, aliases written out; `read_tree` has bounded its size."""
    if isinstance(node, Scalar):
        return node.value
    if node.is_mapping:
        return {key: plain(child) for key, (_, child) in node.entries.items()}
    return [plain(child) for _, child in node.entries.values()]


def read_tree(data: bytes) -> Tree:
    """Raises Unreadable where the bytes are not one YAML document within the limits."""
    text = _decode(data)
    composer = _Composer()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text) from None
    except yaml.YAMLError as error:
        raise Unreadable(1, 1, f"not YAML: {error}") from None
    if composer.root is None:
        raise Unreadable(1, 1, "the file is empty; it needs at least version, name, deploy and targets")
    return Tree(composer.root, tuple(composer.problems), tuple(composer.tuples))


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise Unreadable(0, 0, f"the file has {len(data)} bytes; at most {MAX_BYTES} are allowed")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line_start = before.rfind(b"\n") + 1
        column = len(before[line_start:].decode("utf-8", "replace")) + 1
        raise Unreadable(before.count(b"\n") + 1, column, "not UTF-8; save the file as UTF-8") from None
    if match := _FORBIDDEN.search(text):
        before_text = text[: match.start()]
        column = match.start() - (before_text.rfind("\n") + 1) + 1
        raise Unreadable(before_text.count("\n") + 1, column, f"the character {match[0]!r} is not allowed in YAML")
    return text


def _syntax(error: yaml.MarkedYAMLError, text: str) -> Unreadable:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines()
    rest = lines[line][column:] if line < len(lines) else ""
    indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())] if line < len(lines) else ""
    if rest.startswith("\t") or "\t" in indent:
        return Unreadable(line + 1, column + 1, "a tab is used for indentation; YAML allows only spaces there")
    said = " ".join(part for part in (error.context, error.problem) if part)
    if "nesting depth" in said:
        # The parser looks ahead, some versions of it as far as a limit of their own.
        return Unreadable(line + 1, column + 1, f"nested deeper than {MAX_DEPTH} levels")
    return Unreadable(line + 1, column + 1, f"not YAML: {said}")


class _Composer:
    """Makes the tree from parser events, without recursion."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self.tuples: list[Path] = []
        self._open: list[tuple[Branch, str | None]] = []
        self._keys: list[tuple[str, Place] | None] = []
        self._anchors: dict[str, Node] = {}
        self._count = 0
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._document(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            branch, anchor = self._open.pop()
            self._keys.pop()
            self._finish(branch, anchor)
        elif isinstance(event, yaml.ScalarEvent):
            self._check_tag(event, event.tag)
            value = event.value if event.style in ("'", '"', "|", ">") else scalar_value(event.value)
            self._finish(Scalar(_place(event), value, event.value), event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)

    def _document(self, event: yaml.Event) -> None:
        self._documents += 1
        if self._documents > 1:
            place = _place(event)
            raise Unreadable(place.line, place.column, "a second document begins here; a file holds exactly one")

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        self._check_tag(event, event.tag)
        place = _place(event)
        if len(self._open) >= MAX_DEPTH:
            raise Unreadable(place.line, place.column, f"nested deeper than {MAX_DEPTH} levels")
        self._open.append((Branch(place, isinstance(event, yaml.MappingStartEvent)), event.anchor))
        self._keys.append(None)

    def _alias(self, event: yaml.AliasEvent) -> None:
        place = _place(event)
        if event.anchor not in self._anchors:
            within = any(anchor == event.anchor for _, anchor in self._open)
            why = "would contain itself" if within else "names no anchor that stands before it"
            raise Unreadable(place.line, place.column, f"the alias *{event.anchor} {why}")
        self._finish(self._anchors[event.anchor], None, place)

    def _finish(self, node: Node, anchor: str | None, place: Place | None = None) -> None:
        place = place or node.place
        self._count += node.size if not isinstance(node, Branch) or place is not node.place else 1
        if self._count > MAX_NODES or node.depth + len(self._open) > MAX_DEPTH + 1:
            raise Unreadable(place.line, place.column, f"too much: at most {MAX_NODES} values, aliases written out")
        if anchor:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
        elif self._open[-1][0].is_mapping:
            self._into_mapping(node, place)
        else:
            branch = self._open[-1][0]
            branch.add(len(branch.entries), place, node)

    def _into_mapping(self, node: Node, place: Place) -> None:
        branch, key = self._open[-1][0], self._keys[-1]
        if key is None:
            self._keys[-1] = (self._key_text(node, place, branch), place)
            return
        self._keys[-1] = None
        branch.add(key[0], key[1], node)

    def _key_text(self, node: Node, place: Place, branch: Branch) -> str:
        if isinstance(node, Branch):
            raise Unreadable(place.line, place.column, "a list or mapping cannot be a key")
        if node.text == "<<":
            raise Unreadable(place.line, place.column, "merging by '<<' is not supported; write the keys out")
        if node.text in branch.entries:
            first = branch.entries[node.text][0].line
            self._problem(place, (*self._path(), node.text), f"the key is given twice; first in line {first}")
        return node.text

    def _check_tag(self, event: yaml.Event, tag: str | None) -> None:
        if tag == PYTHON_TUPLE and isinstance(event, yaml.SequenceStartEvent):
            self.tuples.append(tuple(self._path()))
        elif tag is not None and tag != "!":
            self._problem(_place(event), tuple(self._path()), tag_refusal(tag))

    def _problem(self, place: Place, path: Path, message: str) -> None:
        self.problems.append(Problem(path_text(path), place.line, place.column, message))

    def _path(self) -> Iterator[str | int]:
        for (branch, _), key in zip(self._open, self._keys, strict=True):
            if key is not None:
                yield key[0]
            elif not branch.is_mapping:
                yield len(branch.entries)


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1) if mark else Place(0, 0)


def scalar_value(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/, 10.3.2)."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _RADIX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text) and not text.lstrip("+-").startswith("0" * 2) and not re.fullmatch(r"[-+]?\d+", text):
        number = WrittenFloat(text)
        number.written = text
        return number
    return text
