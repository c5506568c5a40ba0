"""Containerfiles from the templates in `templates/`: the same plan always gives the same text."""

import functools
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound

from controller.rendering import packages, quoting
from controller.rendering.packages import PackageList, StepFile

# A shell command is one argument of a process, which Linux limits to 128 KiB.
MAX_COMMAND = 120_000


@dataclass(frozen=True)
class ImagePlan:
    """All that a Containerfile says. Names and values as typed; they are quoted where they are written.

    `cache_scope` names those who share caches of packages. `folders`: of the build context, each copied into `workdir`
    as a layer of its own, in this order. `prepared_*`: the parts lie in the context as archives, no step makes them;
    that of conda always does.
    """

    base: str
    workdir: str
    cache_scope: str = ""
    apt: tuple[str, ...] = ()
    dnf: tuple[str, ...] = ()
    apk: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    conda_channels: tuple[str, ...] = ()
    # Name, version and build number of conda packages whose own scripts have to run.
    conda_scripts: tuple[str, ...] = ()
    pypi: tuple[str, ...] = ()
    pypi_indexes: tuple[str, ...] = ()
    prepared_root: bool = False
    prepared_apt: bool = False
    configure_apt: bool = False
    prepared_pypi: bool = False
    # What is installed sees the Python packages that the base has.
    system_site_packages: bool = False
    runtime_files: tuple[tuple[str, bytes], ...] = ()
    folders: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[int, ...] = ()
    volumes: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    allow_root: bool = False

    @property
    def owner(self) -> str:
        """User and group that the service runs as."""
        return "0:0" if self.allow_root else "1000:1000"

    @property
    def step_name(self) -> str:
        """Makes a step that reads secrets another one outside of `cache_scope`: nobody else gets the layer, which may
        have what only the secret gave access to."""
        return self.cache_id("step") if self.secrets else "step"

    def package_lists(self) -> dict[str, PackageList]:
        """The files below `packages/` of the build context, by kind of package. Raises quoting.CannotQuote."""
        lists = {}
        for manager, names in (("apt", () if self.prepared_apt else self.apt), ("dnf", self.dnf), ("apk", self.apk)):
            if names:
                lists[manager] = packages.names_list(manager, names)
        if self.conda_scripts:
            lists["conda_scripts"] = packages.conda_scripts(self.conda_scripts)
        if self.pypi and not self.prepared_pypi:
            lists["pypi"] = packages.requirements_list(self.pypi, self.pypi_indexes)
        return lists

    def scripts(self) -> dict[str, StepFile]:
        """Further files there: what steps seldom need of their commands, which all become part of the image's
        configuration."""
        if not self.pypi or self.prepared_pypi:
            return {}
        return {"python3": StepFile("python3.sh", _environment().get_template("parts/python3.j2").render())}

    def conda_shown(self) -> tuple[str, ...]:
        """What the archive with the environment of conda was made of, for people. Raises quoting.CannotQuote."""
        return packages.conda_shown(self.conda, self.conda_channels) if self.conda else ()

    def cache_id(self, tool: str) -> str:
        """Name of the cache that a tool has for this base, shared only within `cache_scope`."""
        scope = hashlib.sha256(f"{self.cache_scope}\n{self.base}".encode()).hexdigest()
        return f"longshore-{tool}-{scope[:16]}"


def render(plan: ImagePlan) -> str:
    """The Containerfile; `controller.builds.context` lays out its build context. Raises quoting.CannotQuote."""
    if sum(len(quoting.shell(path)) for path in (plan.workdir, *plan.volumes)) > MAX_COMMAND:
        raise quoting.CannotQuote(f"{len(plan.volumes)} volumes make a command longer than Linux takes; name fewer")
    template = _environment().get_template("Containerfile.j2")
    return template.render(image=plan, lists=plan.package_lists(), scripts=plan.scripts()).rstrip("\n") + "\n"


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
        loader=_PackageLoader(),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for quote in (quoting.word, quoting.shell, quoting.json_words, quoting.json_paths):
        environment.filters[quote.__name__] = quote
    for check in (quoting.env_name, quoting.base_name, quoting.secret_name):
        environment.filters[check.__name__] = check
    return environment
