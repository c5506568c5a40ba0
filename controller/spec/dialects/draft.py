"""The version 1 file that a dialect's reader writes, with where each part of it came from."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.spec.findings import Finding
from controller.spec.messages import unknown_key
from controller.spec.tree import Path, path_text

# Messages quote the file, which may have very long texts.
LONGEST_MESSAGE = 1000


@dataclass(frozen=True)
class Given:
    """A value of the file, and its path there."""

    value: Any
    at: Path

    @property
    def text(self) -> str:
        """A scalar as people wrote it, without blanks around it; a list or mapping as nothing."""
        return "" if isinstance(self.value, dict | list) else said(self.value)

    @property
    def entries(self) -> "list[Given]":
        """Of a list those that hold something; of anything else itself."""
        if not isinstance(self.value, list):
            return [self]
        listed = (Given(value, (*self.at, index)) for index, value in enumerate(self.value))
        return [entry for entry in listed if not is_empty(entry.value)]


def said(value: object) -> str:
    """A scalar as text, without blanks around it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value).strip()


def is_empty(value: object) -> bool:
    """Whether writers of the dialect mean nothing by it: nothing at all, no text, and the word None."""
    return value is None or (isinstance(value, str) and value.strip() in ("", "None"))


@dataclass
class Draft:
    """Version 1, as far as it is written. `origins` has for a path of it the path in the file, and whether all below it
    stands there as it is here."""

    values: dict[str, Any] = field(default_factory=lambda: {"version": 1})
    origins: dict[Path, tuple[Path, bool]] = field(default_factory=dict)
    warnings: list[Finding] = field(default_factory=list)
    refusals: list[Finding] = field(default_factory=list)

    def understood(self, at: Path, message: str) -> None:
        """Something was read as something else."""
        self.warnings.append(Finding(at, message[:LONGEST_MESSAGE]))

    def refuse(self, at: Path, message: str) -> None:
        """Something cannot be served, or is not understood."""
        self.refusals.append(Finding(at, message[:LONGEST_MESSAGE]))

    def put(self, path: Path, value: object, at: Path) -> None:
        """Afterwards `path` holds the value. It held nothing before, else the file is refused."""
        self._into(path, value, at, kept=False)

    def add(self, path: Path, entries: Iterable[Given]) -> None:
        """Appends the entries to the list at `path`."""
        for entry in entries:
            listed = self.get(path)
            if listed is None:
                self.put(path, listed := [], entry.at)
            self.origins[(*path, len(listed))] = (entry.at, False)
            listed.append(entry.value)

    def keep(self, path: Path, value: object, at: Path) -> None:
        """What stands in the file as in version 1: added to what `path` holds already."""
        present = self.get(path)
        if isinstance(present, dict) and isinstance(value, dict):
            for key, part in value.items():
                self.keep((*path, key), part, (*at, key))
        elif isinstance(present, list) and isinstance(value, list):
            for index, part in enumerate(value):
                self.origins[(*path, len(present))] = ((*at, index), True)
                present.append(part)
        else:
            self._into(path, value, at, kept=True)

    def get(self, path: Path) -> Any:
        """What `path` holds; None for nothing."""
        here: Any = self.values
        for part in path:
            if not isinstance(here, dict) or part not in here:
                return None
            here = here[part]
        return here

    def origin(self, path: Path) -> Path:
        """The path in the file of what made this one."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                at, kept = self.origins[path[:length]]
                return (*at, *path[length:]) if kept else at
        return path

    def _into(self, path: Path, value: object, at: Path, *, kept: bool) -> None:
        here: Any = self.values
        for part in path[:-1]:
            here = here.setdefault(part, {}) if isinstance(here, dict) else None
        if not isinstance(here, dict) or path[-1] in here:
            other = path_text(self.origin(path))
            self.refuse(at, f"{other} says the same, in another spelling; keep one of them")
            return
        here[path[-1]] = value
        self.origins[path] = (at, kept)


class Section:
    """A mapping of the file. What is taken from it was read; the rest stands there as in version 1, or is unknown."""

    def __init__(self, draft: Draft, values: Mapping[str, Any], at: Path) -> None:
        self._draft = draft
        self.rest = dict(values)
        self.at = at

    def take(self, *spellings: str) -> Given | None:
        """The value under any of these keys; None where it is empty. Different values under several are refused."""
        found = [
            Given(self.rest.pop(name), (*self.at, name))
            for name in spellings
            if name in self.rest and not is_empty(self.rest[name])
        ]
        for name in spellings:
            self.rest.pop(name, None)
        for other in found[1:]:
            if other.value != found[0].value:
                message = f"{path_text(found[0].at)} says something else; keep one of them"
                self._draft.refuse(other.at, message)
        return found[0] if found else None

    def section(self, *spellings: str) -> "Section":
        """The mapping under any of these keys; an empty one where there is none. Anything else is refused."""
        given = self.take(*spellings)
        if given is None:
            return Section(self._draft, {}, (*self.at, spellings[0]))
        if not isinstance(given.value, dict):
            self._draft.refuse(given.at, "expected a mapping")
            return Section(self._draft, {}, given.at)
        return Section(self._draft, given.value, given.at)

    def refuse_rest(self, known: Collection[str]) -> None:
        """Nothing else may stand here: version 1 has no such section."""
        for name, value in self.rest.items():
            if not is_empty(value):
                self._draft.refuse((*self.at, name), unknown_key(name, known))
