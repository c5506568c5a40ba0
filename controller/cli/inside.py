"""`longshore exec` and `longshore port-forward`: speaking with one instance on its device."""

import contextlib
import os
import sys
import threading
from typing import Annotated

import typer

from controller.cli import output, session, terminal
from controller.cli.errors import Exit, UsageProblem
from longshore.client import Answer
from longshore.errors import Reason
from longshore.failures import LongshoreError
from longshore.instance_sessions import ExecSession

# As a shell counts a program that nobody listens to any more (SIGPIPE).
NOBODY_READS = 141


def exec_(
    name: session.DeploymentName,
    command: Annotated[list[str], typer.Argument(help="What to run; options of its own go behind --.")],
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Pass standard input on.")] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="In a terminal.")] = False,
    device: session.DeviceName = "",
    user: session.User = "",
    project: session.ProjectName = "",
    context: session.ContextFile = None,
) -> None:
    """Run a command inside a deployment's instance, on its device.

    Ends with the command's exit code (127: there is no such command); with 1, or 4 where the controller cannot be
    reached, and a sentence on stderr where the session breaks. The command ends with this one. With -it, Ctrl-C and
    all other keys go to the command.

    Examples:

      longshore exec digits -- ls -l /app

      longshore exec -it digits -- sh

      longshore exec -i digits --device edge-7 -- tar x -C /tmp < files.tar
    """
    with session.session(context, user, project) as here:
        answer = here.client.find_deployment(here.project, name)
        began = here.client.exec(
            answer.deployment.id, command, device_id=session.device_id(answer, device), stdin=stdin,
            terminal=terminal.size() if tty else None,
        )  # fmt: skip
        with began as running, contextlib.ExitStack() as stack:
            if tty:
                stack.enter_context(terminal.sizes_told(running))
            if tty and stdin:
                stack.enter_context(terminal.raw())
            if stdin:
                terminal.give_input(running)
            code = _show(running)
    raise typer.Exit(code)


def _show(running: ExecSession) -> int:
    """Writes all that the command says; its exit code."""
    streams = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    try:
        for said in running:
            streams[said.stream].write(said.data)
            streams[said.stream].flush()
    except BrokenPipeError:
        # Python would try to flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    return Exit.FAILED if running.exit_code is None else running.exit_code


def port_forward(
    name: session.DeploymentName,
    ports: Annotated[str, typer.Argument(metavar="LOCAL:PORT", help="A local port, 0 for any; a port of the spec.")],
    device: session.DeviceName = "",
    address: Annotated[str, typer.Option(help="Listen at this local address.")] = "127.0.0.1",
    user: session.User = "",
    project: session.ProjectName = "",
    context: session.ContextFile = None,
) -> None:
    """Reach a port of a deployment's instance at a local port, wherever its device is.

    Goes on until Ctrl-C. PORT is the name that it has in the deployment.yml; without it, the only one.

    Examples:

      longshore port-forward digits 8080:http

      longshore port-forward digits 0:http --device edge-7
    """
    local, port = _ports(ports)
    with session.session(context, user, project) as here:
        answer = here.client.find_deployment(here.project, name)
        device_id = session.device_id(answer, device)
        port = _known_port(answer, device_id, port)
        try:
            made = here.client.port_forward(
                answer.deployment.id, port, device_id=device_id, host=address, local_port=local, on_failure=_tell
            )
        except OSError as error:
            raise UsageProblem(f"cannot listen on {address}:{local}: {error.strerror}") from None
        with made as forwarder:
            host, number = forwarder.address
            shown = f"[{host}]" if ":" in host else host
            print(f"{shown}:{number} reaches {f'port {port} of {name}' if port else name}; Ctrl-C ends it", flush=True)
            threading.Event().wait()


def _ports(text: str) -> tuple[int, str]:
    """The local port and the name of the other."""
    local, colon, port = text.partition(":")
    if not colon and not local.isdecimal():
        local, port = "0", text
    if not local.isdecimal() or int(local) > 65535:
        raise UsageProblem(f"'{text}' is no LOCAL:PORT, such as 8080:http")
    return int(local), port


def _known_port(answer: Answer, device_id: str, port: str) -> str:
    """The port as it is called, as far as what the devices have reported tells; they have the last word."""
    for instance in answer.instances:
        names = [endpoint.name for endpoint in instance.status.endpoints]
        if not names or device_id not in ("", instance.device_id):
            continue
        if port and port not in names:
            message = f"{answer.deployment.name} has no port {port}; its ports are: {', '.join(names)}"
            raise LongshoreError(Reason.NO_SUCH_PORT, message)
        return port or (names[0] if len(names) == 1 else "")
    return port


def _tell(failure: LongshoreError) -> None:
    output.note(f"a connection failed: {failure.message}")
