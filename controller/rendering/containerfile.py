"""Containerfiles from the templates in `templates/`: the same plan always gives the same text."""

import functools
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound

from controller.rendering import quoting

# A shell command is one argument of a process, which Linux limits to 128 KiB.
MAX_COMMAND = 120_000


@dataclass(frozen=True)
class ImagePlan:
    """All that a Containerfile says. Names and values as typed; they are quoted where they are written."""

    base: str
    workdir: str
    apt: tuple[str, ...] = ()
    pypi: tuple[str, ...] = ()
    has_files: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[int, ...] = ()
    entrypoint: tuple[str, ...] = ()


def render(plan: ImagePlan) -> str:
    """The Containerfile; its build context has the user's files below `files/`. Raises quoting.CannotQuote."""
    for packages in (plan.apt, plan.pypi):
        if sum(len(package.encode()) + 12 for package in packages) > MAX_COMMAND:
            raise quoting.CannotQuote(f"{len(packages)} packages make a command longer than Linux takes; name fewer")
    return _environment().get_template("Containerfile.j2").render(image=plan).rstrip("\n") + "\n"


class _PackageLoader(BaseLoader):
    """Reads templates as package data, from a checkout and from an installed wheel alike."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, None]:
        source = files("templates").joinpath(*template.split("/"))
        if not source.is_file():
            raise TemplateNotFound(template)
        return source.read_text(encoding="utf-8"), None, None


@functools.cache
def _environment() -> Environment:
    # No autoescape: this is no HTML; every value passes one of the quoting filters.
    environment = Environment(
        loader=_PackageLoader(), undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    for quote in (quoting.word, quoting.shell, quoting.json_words, quoting.env_name, quoting.base_name):
        environment.filters[quote.__name__] = quote
    environment.filters["apt_package"] = quoting.apt_package
    return environment
