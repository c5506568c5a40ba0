"""The tables of docs/older-forms.md, from the code: `python -m tests.support.older_forms_tables` prints them."""

from controller.spec.dialects.tango.tables import (
    ARCHITECTURES,
    ENGINES,
    KUBERNETES,
    OTHER_SYSTEMS,
    PLAIN_TYPES,
    TARGETS,
    UNSERVED,
)


def tables() -> dict[str, str]:
    """Each table by its name in the page."""
    return {"types": _types(), "architectures": _architectures(), "engines": ", ".join(f"`{name}`" for name in ENGINES)}


def _types() -> str:
    rows = [f"| `{name}` | {_meant(profile)} |" for name, profile in TARGETS.items()]
    rows += [f"| `{name}` | by architecture and accelerator; {kind} |" for name, kind in PLAIN_TYPES.items()]
    rows += [f"| `{name}` | refused: {why}; {near} |" for name, (why, near) in UNSERVED.items()]
    return "\n".join(["| `deploy.type` | target profile |", "|---|---|", *rows])


def _meant(profile: str) -> str:
    return "`x86-cuda` with `gpu` or `cuda`, else `x86-cpu`" if profile == "x86" else f"`{profile}`"


def _architectures() -> str:
    rows = [f"| `{name}` | {_family(name, family)} |" for name, family in ARCHITECTURES.items()]
    rows += [f"| `{name}` (`build.os`) | refused: {why}; {near} |" for name, (why, near) in OTHER_SYSTEMS.items()]
    return "\n".join(["| `build.architecture` | target profile |", "|---|---|", *rows])


def _family(name: str, family: str) -> str:
    if name in KUBERNETES:
        return "left out"
    return _meant(family) if family == "x86" else f"`{family}-cpu`"


if __name__ == "__main__":
    for name, table in tables().items():
        print(f"<!-- {name} -->\n{table}\n")
