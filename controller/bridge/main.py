"""`longshore-tango-bridge`: serves TANGO's Project Manager beside a controller."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import structlog
import typer
from aiohttp import web

from controller.bridge.bridge import Bridge
from controller.bridge.calls import Calls
from controller.bridge.folders import Folders
from controller.bridge.journal import Journal
from controller.bridge.reports import Manager
from controller.bridge.web import Pages
from controller.bridge.worker import Means
from controller.cli.context import Context, context_path, load_context
from controller.cli.errors import UsageProblem
from controller.log_output import configure_logging
from longshore.client import Client

# What the bridge does by itself is tried again by itself, so that no call waits long in its thread.
_TIMEOUT, _PATIENCE = 30.0, 1.0
app = typer.Typer(add_completion=False)
log = structlog.get_logger()


@app.command()
def serve(
    shared: Annotated[Path, typer.Option(help="TANGO's shared folder; projects lie in common/USER/PROJECT below it.")],
    manager: Annotated[str, typer.Option(help="The Project Manager, such as http://manager:8085.")],
    context: Annotated[
        str | None, typer.Option(help="Which controller: name or file of a context.", envvar="LONGSHORE_CONTEXT")
    ] = None,
    state_dir: Annotated[Path, typer.Option(help="Where it keeps what was asked for.")] = Path(
        "/var/lib/longshore-tango-bridge"
    ),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks one, the log says which.")] = 8891,
    container_id: Annotated[str, typer.Option(help="The name under which it reports.")] = "ondevice_deploy",
) -> None:
    """Serve /start, /stop and /status_request for TANGO's Project Manager, and report to it."""
    configure_logging()
    try:
        here = load_context(context_path(context))
        asyncio.run(_serve(here, Folders(shared), Journal(state_dir), Manager(manager, container_id), host, port))
    except (UsageProblem, OSError) as error:
        print(f"longshore-tango-bridge: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


async def _serve(here: Context, folders: Folders, journal: Journal, manager: Manager, host: str, port: int) -> None:
    calls = Calls(Client(here.address, here.token, here.ca or None, timeout=_TIMEOUT, patience=_PATIENCE))
    bridge = Bridge(Means(journal, folders, calls, manager))
    runner = web.AppRunner(Pages(bridge).application(), access_log=None)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        log.info("serving", address=f"http://{host}:{runner.addresses[0][1]}")
        bridge.resume()
        await ended.wait()
    finally:
        await runner.cleanup()
        await bridge.close()
        calls.close()


def main() -> None:
    app()


if __name__ == "__main__":
    main()
