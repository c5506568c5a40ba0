"""What goes into a build or a deployment besides its files: secrets, and targets, from the command line."""

import difflib
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.cli.errors import UsageProblem
from controller.spec.model import Spec

_ENVIRONMENT = "env:"


@dataclass(frozen=True)
class Secrets:
    """Values by name: of `build.secrets`, and of `deploy.secrets`."""

    build: dict[str, bytes]
    deploy: dict[str, bytes]


def secret_values(given: Iterable[str], spec: Spec) -> dict[str, bytes]:
    """The value of each secret of the spec, from texts `name=FILE` and `name=env:VARIABLE`.

    Raises UsageProblem where a name is missing, is not one of the spec's, or its value cannot be had. Messages never
    have a value.
    """
    values = given_values(given)
    _refuse_unknown(values, {"build.secrets": spec.build.secrets})
    _require_all(values, spec)
    return values


def deploy_secrets(given: Iterable[str], spec: Spec, *, built: bool) -> Secrets:
    """The values for each part of the spec that names them; those of `build` only where it is not `built` already.

    Raises UsageProblem where no part names one, one of the build's is missing, or its value cannot be had. What
    `deploy.secrets` lacks is for the controller to judge: it may know the value from the revision before.
    """
    values = given_values(given)
    running = [secret.name for secret in spec.deploy.secrets]
    _refuse_unknown(values, {"build.secrets": spec.build.secrets, "deploy.secrets": running})
    if built and (useless := sorted(values.keys() - set(running))):
        raise UsageProblem(f"--secret {useless[0]}: only build.secrets names it, and the build has had it")
    if not built:
        _require_all(values, spec)
    building = [] if built else spec.build.secrets
    return Secrets(*({name: values[name] for name in names if name in values} for names in (building, running)))


def given_values(given: Iterable[str]) -> dict[str, bytes]:
    """Values by name, whoever asks for them. Raises UsageProblem."""
    values: dict[str, bytes] = {}
    for text in given:
        name, equals, source = text.partition("=")
        if not equals or not name or not source:
            raise UsageProblem(f"--secret {name}: expected name=FILE or name=env:VARIABLE")
        if name in values:
            raise UsageProblem(f"--secret {name} is given twice")
        values[name] = _value(name, source)
    return values


def _refuse_unknown(values: Collection[str], parts: Mapping[str, Collection[str]]) -> None:
    named = {name for names in parts.values() for name in names}
    if unknown := sorted(set(values) - named):
        told = (f"{part} names {', '.join(sorted(names)) or 'none'}" for part, names in parts.items())
        raise UsageProblem(f"no secret {unknown[0]} in this deployment.yml: {'; '.join(told)}")


def _require_all(values: Collection[str], spec: Spec) -> None:
    if missing := sorted(set(spec.build.secrets) - set(values)):
        options = " ".join(f"--secret {name}=FILE" for name in missing)
        raise UsageProblem(f"the build needs secrets: {options}; or name=env:VARIABLE")


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
