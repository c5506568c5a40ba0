"""What goes into a build besides its files: secrets, and the choice of targets, from the command line."""

import difflib
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from controller.cli.errors import UsageProblem
from controller.spec.model import Spec

_ENVIRONMENT = "env:"


def secret_values(given: Iterable[str], spec: Spec) -> dict[str, bytes]:
    """The value of each secret of the spec, from texts `name=FILE` and `name=env:VARIABLE`.

    Raises UsageProblem where a name is missing, is not one of the spec's, or its value cannot be had. Messages never
    have a value.
    """
    values: dict[str, bytes] = {}
    for text in given:
        name, equals, source = text.partition("=")
        if not equals or not name or not source:
            raise UsageProblem(f"--secret {name}: expected name=FILE or name=env:VARIABLE")
        if name in values:
            raise UsageProblem(f"--secret {name} is given twice")
        values[name] = _value(name, source)
    wanted = set(spec.build.secrets)
    if unknown := sorted(values.keys() - wanted):
        named = f"build.secrets names {', '.join(sorted(wanted))}" if wanted else "build.secrets names none"
        raise UsageProblem(f"no secret {unknown[0]} in this deployment.yml: {named}")
    if missing := sorted(wanted - values.keys()):
        options = " ".join(f"--secret {name}=FILE" for name in missing)
        raise UsageProblem(f"the build needs secrets: {options}; or name=env:VARIABLE")
    return values


def _value(name: str, source: str) -> bytes:
    if source.startswith(_ENVIRONMENT):
        variable = source.removeprefix(_ENVIRONMENT)
        value = os.environ.get(variable)
        if value is None:
            raise UsageProblem(f"--secret {name}: the variable {variable} is not set")
        return os.fsencode(value)
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise UsageProblem(f"--secret {name}: cannot read {source}: {error.strerror}") from None


def chosen_targets(given: Collection[str], spec: Spec) -> list[str]:
    """Keys of targets, each of which the spec has. Raises UsageProblem for any other."""
    known = list(dict.fromkeys(target.key for target in spec.targets))
    for key in given:
        if key not in known:
            raise UsageProblem(f"no target {key} in this deployment.yml{near(key, known)}; it has: {', '.join(known)}")
    return list(given)


def near(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" where one of the known words is like this one, else ""."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{found[0]}'?" if found else ""
