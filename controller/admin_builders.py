"""`longshore-controller builder`: the builder hosts in controller.yml, and whether they can be used."""

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from controller.errors import OperatorError
from controller.settings import BuilderHost, Builds, Settings, load_settings, save_settings
from controller.setup import DataFolder

builders = typer.Typer(no_args_is_help=True, help="Machines that build: what controller.yml says, and trying it out.")
DataDir = Annotated[Path, typer.Option("--data-dir", envvar="LONGSHORE_DATA", help="Folder of this installation.")]
DEFAULT_DATA = Path("/var/lib/longshore")


Model = TypeVar("Model", BuilderHost, Builds)


class InvalidHost(OperatorError):
    """A builder host cannot be as it was described."""


@builders.command("add")
def add_builder(
    name: Annotated[str, typer.Argument(help="Its name, for people.")],
    url: Annotated[str, typer.Argument(help="ssh://user@host[:port]/path/of/podman.sock or tls://host:port")],
    data_dir: DataDir = DEFAULT_DATA,
    slots: Annotated[int, typer.Option(help="Builds at a time.")] = 2,
    platform: Annotated[
        list[str] | None, typer.Option(help="What it builds; its own platform where none is given. May be repeated.")
    ] = None,
    ssh_key: Annotated[Path | None, typer.Option(help="Private key for ssh.")] = None,
    known_hosts: Annotated[Path | None, typer.Option(help="File with the host's key, for ssh.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="What verifies the host, for TLS.")] = None,
    cert_file: Annotated[Path | None, typer.Option(help="The controller's certificate there, for TLS.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="Its private key, for TLS.")] = None,
) -> None:
    """Adds a builder host, or changes the one of this name; used from the controller's next start on.

    Example: longshore-controller builder add arm-builder ssh://builder@192.168.1.20/run/podman/podman.sock
    """
    settings = load_settings(data_dir)
    files = {"ssh_key": ssh_key, "known_hosts": known_hosts, "ca_file": ca_file, "cert_file": cert_file}
    wanted = {
        "name": name,
        "url": url,
        "slots": slots,
        "platforms": tuple(platform or ()),
        **files,
        "key_file": key_file,
    }
    host = _checked(BuilderHost, wanted)
    others = tuple(one for one in settings.builds.hosts if one.name != name)
    _save(data_dir, settings, (*others, host))
    typer.echo(f"{name} builds from the controller's next start on; try it: longshore-controller builder check {name}")


@builders.command("list")
def list_builders(data_dir: DataDir = DEFAULT_DATA) -> None:
    """Lists the builder hosts that controller.yml names.

    Example: longshore-controller builder list
    """
    builds = load_settings(data_dir).builds
    if builds.local:
        typer.echo(f"local  this machine  {builds.parallel} at a time")
    for host in builds.hosts:
        typer.echo(f"{host.name}  {host.url}  {host.slots} at a time  {' '.join(host.platforms)}".rstrip())


@builders.command("remove")
def remove_builder(name: str, data_dir: DataDir = DEFAULT_DATA) -> None:
    """Takes a builder host out of controller.yml; a running controller uses it until its next start."""
    settings = load_settings(data_dir)
    _require(settings, name)
    _save(data_dir, settings, tuple(one for one in settings.builds.hosts if one.name != name))
    typer.echo(f"{name} is no builder host any more")


@builders.command("check")
def check_builder(name: str, data_dir: DataDir = DEFAULT_DATA) -> None:
    """Connects to a builder host, and says what it can build.

    Example: longshore-controller builder check arm-builder
    """
    host = _require(load_settings(data_dir), name)
    typer.echo(asyncio.run(_ask(host, DataFolder(data_dir))))


async def _ask(host: BuilderHost, folder: DataFolder) -> str:
    # Here, since the other commands need none of it and should answer at once.
    from controller.assembly import ask_host
    from controller.builds.model import BuildFailed

    with tempfile.TemporaryDirectory(prefix="longshore-check-") as scratch:
        try:
            abilities = await ask_host(host, folder, Path(scratch))
        except BuildFailed as failure:
            raise InvalidHost(f"{host.name}: {failure.message}") from failure
    by_emulation = f", by emulation {' '.join(sorted(abilities.emulated))}" if abilities.emulated else ""
    return f"{host.name} builds for {' '.join(sorted(abilities.native)) or 'nothing by nature'}{by_emulation}"


def _require(settings: Settings, name: str) -> BuilderHost:
    found = next((one for one in settings.builds.hosts if one.name == name), None)
    if found is None:
        known = ", ".join(one.name for one in settings.builds.hosts) or "there are none"
        raise InvalidHost(f"no builder host {name}; known: {known}")
    return found


def _save(data_dir: Path, settings: Settings, hosts: tuple[BuilderHost, ...]) -> None:
    fields = {name: getattr(settings.builds, name) for name in settings.builds.model_fields_set}
    builds = _checked(Builds, {**fields, "hosts": hosts})
    save_settings(data_dir, settings.model_copy(update={"builds": builds}))


def _checked(model: type[Model], fields: dict[str, Any]) -> Model:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc'])) or 'hosts'}: {one['msg']}" for one in error.errors()]
        raise InvalidHost("; ".join(problems)) from error
