"""Reads a `deployment.yml`: a valid Spec, or every problem in it, each with its place."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controller.errors import InvalidSpec, Problem
from controller.spec.completing import complete
from controller.spec.consistency import findings
from controller.spec.dialects import normalise, older_keys
from controller.spec.dialects.draft import Draft
from controller.spec.findings import Finding
from controller.spec.messages import fields_at, sentence, unknown_key
from controller.spec.model import Spec
from controller.spec.pairing import Profile
from controller.spec.runtimes import load_runtimes
from controller.spec.tree import (
    PYTHON_TUPLE,
    Branch,
    Path,
    Tree,
    Unreadable,
    path_text,
    plain,
    read_tree,
    tag_refusal,
)


@dataclass(frozen=True)
class Reading:
    """A file that is valid. `values`: the file in version 1, as it would be written. `warnings`: what of an older form
    was read as what, in the order of the file; none for a file of version 1."""

    spec: Spec
    values: Mapping[str, Any]
    warnings: tuple[Problem, ...] = ()


def load_spec(data: bytes, known_profiles: Mapping[str, Profile] | None = None) -> Spec:
    """The Spec that `data` holds, as `read_spec` reads it. Raises InvalidSpec."""
    return read_spec(data, known_profiles).spec


def read_spec(data: bytes, known_profiles: Mapping[str, Profile] | None = None, default_name: str = "") -> Reading:
    """The Spec that `data` holds, completed by what its runtime adds (controller.spec.completing).

    Raises InvalidSpec with all problems at once, in the order of the file; any other input is a valid Spec. A file that
    names no version may be in one of the older forms of controller.spec.dialects. `known_profiles`: where given,
    targets must name one of them and ask for nothing that it does not have, and the runtime has to be known.
    `default_name`: of a service whose file, in an older form, names none.
    """
    runtimes = load_runtimes()
    tree = _tree(data)
    draft = normalise(tree, default_name)
    values = plain(tree.root) if draft is None else draft.values
    spec, errors = _validate(values, older=draft is not None)
    found = [*errors, *findings(values, known_profiles, runtimes)]
    problems = [*tree.problems, *_of_draft(tree, draft, found), *(_tuples(tree) if draft is None else ())]
    if problems or spec is None:
        raise InvalidSpec(_ordered(problems))
    warnings = [_placed(tree, finding) for finding in draft.warnings] if draft else []
    assert isinstance(values, dict)
    return Reading(complete(spec, runtimes), values, tuple(_ordered(warnings)))


def warnings_of(data: bytes) -> tuple[Problem, ...]:
    """What of a file that is known to be valid was read as what: as `Reading.warnings`, and quicker. Nothing of one
    that cannot be read."""
    try:
        tree = _tree(data)
    except InvalidSpec:
        return ()
    draft = normalise(tree)
    return tuple(_ordered([_placed(tree, finding) for finding in draft.warnings])) if draft else ()


def _tree(data: bytes) -> Tree:
    try:
        tree = read_tree(data)
    except Unreadable as unreadable:
        raise InvalidSpec([unreadable.problem]) from None
    if not isinstance(tree.root, Branch) or not tree.root.is_mapping:
        place = tree.root.place
        message = "expected a mapping with version, name, ..."
        raise InvalidSpec([*tree.problems, Problem("", place.line, place.column, message)])
    return tree


def _of_draft(tree: Tree, draft: Draft | None, found: list[Finding]) -> Iterator[Problem]:
    """Problems at their places in the file, whose own paths they name too. Of what a dialect refuses nothing else is
    said at the same place."""
    if draft is None:
        yield from (_placed(tree, finding) for finding in found)
        return
    yield from (_placed(tree, finding) for finding in draft.refusals)
    refused = {finding.path for finding in draft.refusals}
    if draft.refusals:
        # What a refused part would have given is missing, and it need not be said that it is.
        found = [finding for finding in found if finding.path not in (("targets",), ("name",))]
    for finding in found:
        origin = draft.origin(finding.path)
        if origin not in refused:
            yield _placed(tree, Finding(origin, finding.message))


def _tuples(tree: Tree) -> Iterator[Problem]:
    for path in tree.tuples:
        yield _placed(tree, Finding(path, tag_refusal(PYTHON_TUPLE)))


def _validate(values: object, *, older: bool) -> tuple[Spec | None, list[Finding]]:
    try:
        return Spec.model_validate(values), []
    except ValidationError as error:
        more = older_keys if older else None
        return None, list(_merged(error.errors(include_url=False), values, more))


def _merged(
    errors: list[ErrorDetails], values: object, more: Callable[[Path], tuple[str, ...]] | None
) -> Iterator[Finding]:
    """One finding for each path: a field with alternatives has one error for each of them. `more`: the keys that are
    allowed below a path besides those of the models."""
    said: dict[Path, dict[str, None]] = {}
    for error in errors:
        path = _real_path(error, values)
        text = None
        if error["type"] == "extra_forbidden":
            known = [*fields_at(path[:-1]), *(more(path[:-1]) if more else ())]
            text = unknown_key(str(path[-1]), known)
        said.setdefault(path, {})[text or sentence(error)] = None
    for path, messages in said.items():
        yield Finding(path, "; or ".join(messages))


def _real_path(error: ErrorDetails, values: object) -> Path:
    """The path in the file; pydantic adds the names of a union's members and "[key]"."""
    path: list[str | int] = []
    here = values
    for part in error["loc"]:
        if not _holds(here, part):
            return (*path, part) if error["type"] == "missing" else tuple(path)
        here = here[part]  # type: ignore[index]  # a dict or a list that has it
        path.append(part)
    return tuple(path)


def _holds(values: object, part: str | int) -> bool:
    if isinstance(values, dict):
        return part in values
    return isinstance(values, list) and isinstance(part, int) and part < len(values)


def _placed(tree: Tree, finding: Finding) -> Problem:
    _, place = tree.find(finding.path)
    if finding.message.startswith("unknown key") or "variable name" in finding.message:
        place = tree.key_place(finding.path)
    return Problem(path_text(finding.path), place.line, place.column, finding.message)


def _ordered(problems: list[Problem]) -> list[Problem]:
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.column))
