"""`longshore-controller`: makes an installation, serves it, hands out API tokens."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from controller.admin_builders import builders
from controller.errors import DomainError, OperatorError
from controller.local.broker import LocalBroker
from controller.local.registry import LocalRegistry
from controller.local.server import EVERYWHERE, LocalServer
from controller.log_output import configure_logging
from controller.pki import CertificateAuthority
from controller.settings import Broker, Endpoint, Registry, Settings, load_settings, split
from controller.setup import DataFolder, add_token, context_text, set_up
from controller.store import open_store
from controller.store.access import Principal, Role

DEFAULT_DATA = Path("/var/lib/longshore")
app = typer.Typer(no_args_is_help=True, add_completion=False, help="Runs the Longshore controller.")
tokens = typer.Typer(no_args_is_help=True, help="API tokens of users and programs.")
app.add_typer(tokens, name="token")
app.add_typer(builders, name="builder")
DataDir = Annotated[Path, typer.Option("--data-dir", envvar="LONGSHORE_DATA", help="Folder of this installation.")]


@app.command()
def init(
    data_dir: DataDir = DEFAULT_DATA,
    host: Annotated[str, typer.Option(help="Name or address under which devices and users reach this machine.")] = "",
    public_port: Annotated[int, typer.Option(help="gRPC for users.")] = 7443,
    agent_port: Annotated[int, typer.Option(help="gRPC for agents.")] = 7444,
    web_port: Annotated[int, typer.Option(help="HTTPS: the registry's token endpoint.")] = 7445,
    broker: Annotated[str, typer.Option(help="host:port of the MQTT broker; default: this host, 8883.")] = "",
    registry: Annotated[str, typer.Option(help="host:port of the OCI registry; default: this host, 7446.")] = "",
) -> None:
    """Makes an installation: private CA, certificates, database, the first administrator's token.

    Example: longshore-controller init --host 192.168.1.10
    """
    name = host or socket.getfqdn()

    def endpoint(port: int) -> Endpoint:
        return Endpoint(listen=f"{EVERYWHERE}:{port}", address=f"{name}:{port}")

    settings = Settings(
        public=endpoint(public_port),
        agents=endpoint(agent_port),
        web=endpoint(web_port),
        broker=Broker(address=broker or f"{name}:8883"),
        registry=Registry(address=registry or f"{name}:7446"),
    )
    folder = set_up(data_dir, settings)
    typer.echo(
        f"made {data_dir}; start it: longshore-controller serve --with-broker --with-registry --data-dir {data_dir}"
    )
    typer.echo(
        f"administrator's context: {folder.admin_context} (use it: export LONGSHORE_CONTEXT={folder.admin_context})"
    )


@app.command("serve")
def serve_command(
    data_dir: DataDir = DEFAULT_DATA,
    with_broker: Annotated[bool, typer.Option(help="Run Mosquitto beside it, on the broker's address.")] = False,
    with_registry: Annotated[
        bool, typer.Option(help="Run docker-registry beside it, on the registry's address.")
    ] = False,
) -> None:
    """Serves until SIGTERM.

    Example: longshore-controller serve --with-broker --with-registry
    """
    configure_logging()
    asyncio.run(_serve(data_dir, with_broker, with_registry))


@app.command("housekeeping")
def housekeeping_command(
    data_dir: DataDir = DEFAULT_DATA,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed now; remove nothing.")] = False,
) -> None:
    """What housekeeping would remove now. The controller that serves removes it by itself.

    Example: longshore-controller housekeeping --dry-run
    """
    if not dry_run:
        raise OperatorError("the controller that serves does this by itself; --dry-run shows what it would remove")
    from controller.housekeeping.report import report

    typer.echo(asyncio.run(report(data_dir)))


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="Whose token it is, for people.")],
    data_dir: DataDir = DEFAULT_DATA,
    user: Annotated[
        str, typer.Option(help="Limit it to the projects of this user id; else it is an administrator's.")
    ] = "",
    context: Annotated[Path | None, typer.Option(help="Also write a context file for the longshore command.")] = None,
) -> None:
    """Makes an API token and prints it; only its hash is kept.

    Example: longshore-controller token create tango --user alice
    """
    folder, settings = DataFolder(data_dir), load_settings(data_dir)
    store = open_store(folder.database)
    with contextlib.closing(store):
        secret = add_token(store, Principal(name, Role.MEMBER if user else Role.ADMIN, user))
    if context is not None:
        context.touch(mode=0o600)
        context.write_text(context_text(secret, CertificateAuthority.load(folder.ca), settings))
    typer.echo(secret)


@tokens.command("revoke")
def revoke_token(name: str, data_dir: DataDir = DEFAULT_DATA) -> None:
    """Makes a token useless at once."""
    load_settings(data_dir)
    store = open_store(DataFolder(data_dir).database)
    with contextlib.closing(store):
        known = store.transact_now(lambda tx: tx.access.remove_api_token(name))
    if not known:
        typer.echo(f"no token named {name}", err=True)
        raise typer.Exit(1)


async def _serve(data_dir: Path, with_broker: bool, with_registry: bool) -> None:
    # Here, since the other commands need none of it and should answer at once.
    from controller.server import serve

    settings, folder = load_settings(data_dir), DataFolder(data_dir)
    ca = CertificateAuthority.load(folder.ca)
    beside: list[LocalServer] = []
    collect: Callable[[], Awaitable[None]] | None = None
    if with_broker:
        host, port = split(settings.broker.address)
        listen = settings.broker.listen or f"{EVERYWHERE}:{port}"
        beside.append(LocalBroker(data_dir / "broker", ca, host, port, listen=listen))
    if with_registry:
        host, port = split(settings.registry.address)
        listen = settings.registry.listen or f"{EVERYWHERE}:{port}"
        realm = f"https://{settings.web.address}/registry/token"
        certificate = folder.registry_tokens / "ca.crt"
        registry = LocalRegistry(data_dir / "registry", ca, realm, certificate, host, port, listen=listen)
        beside.append(registry)
        collect = registry.collect_garbage
    await serve(data_dir, beside, collect)


def main() -> None:
    """Entry of the command: known errors become one line."""
    try:
        app()
    except (OperatorError, DomainError) as error:
        typer.echo(f"longshore-controller: {error}", err=True)
        raise SystemExit(1) from None
    except OSError as error:
        typer.echo(f"longshore-controller: {error.filename or ''} {error.strerror or error}".strip(), err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
