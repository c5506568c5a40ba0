"""Reads a `deployment.yml`: a valid Spec, or every problem in it, each with its place."""

from collections.abc import Iterator, Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controller.errors import InvalidSpec, Problem
from controller.spec.completing import complete
from controller.spec.consistency import findings
from controller.spec.findings import Finding
from controller.spec.messages import fields_at, sentence, unknown_key
from controller.spec.model import Spec
from controller.spec.pairing import Profile
from controller.spec.runtimes import load_runtimes
from controller.spec.tree import Branch, Path, Tree, Unreadable, path_text, plain, read_tree


def load_spec(data: bytes, known_profiles: Mapping[str, Profile] | None = None) -> Spec:
    """The Spec that `data` holds, completed by what its runtime adds (controller.spec.completing).

    Raises InvalidSpec with all problems at once, in the order of the file; any other input is a valid Spec.
    `known_profiles`: where given, targets must name one of them and ask for nothing that it does not have, and the
    runtime has to be known.
    """
    runtimes = load_runtimes()
    try:
        tree = read_tree(data)
    except Unreadable as unreadable:
        raise InvalidSpec([unreadable.problem]) from None
    problems = list(tree.problems)
    values = plain(tree.root)
    if not isinstance(tree.root, Branch) or not tree.root.is_mapping:
        place = tree.root.place
        raise InvalidSpec([Problem("", place.line, place.column, "expected a mapping with version, name, ...")])
    spec, errors = _validate(values)
    problems += [_placed(tree, finding) for finding in (*errors, *findings(values, known_profiles, runtimes))]
    if problems or spec is None:
        raise InvalidSpec(_ordered(problems))
    return complete(spec, runtimes)


def _validate(values: object) -> tuple[Spec | None, list[Finding]]:
    try:
        return Spec.model_validate(values), []
    except ValidationError as error:
        return None, list(_merged(error.errors(include_url=False), values))


def _merged(errors: list[ErrorDetails], values: object) -> Iterator[Finding]:
    """One finding for each path: a field with alternatives has one error for each of them."""
    said: dict[Path, dict[str, None]] = {}
    for error in errors:
        path = _real_path(error, values)
        text = unknown_key(str(path[-1]), fields_at(path[:-1])) if error["type"] == "extra_forbidden" else None
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
