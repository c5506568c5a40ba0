"""Commands inside a running container: to their end with all they print, or with input and output as they come."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.podman import machine
from edge_agent.podman.connection import Connection
from edge_agent.podman.container import Container
from edge_agent.podman.errors import ApiError
from edge_agent.podman.exec_session import PodmanExec
from edge_agent.podman.frames import payload
from edge_agent.runtime.backend import BackendError, ExecResult, TerminalSize
from edge_agent.runtime.command_processes import kill_command
from edge_agent.runtime.open_commands import OpenCommands

OUTPUT_LIMIT = 1024 * 1024
# Exit codes of a shell for what cannot be run.
NOT_EXECUTABLE, NOT_FOUND = 126, 127


@dataclass(frozen=True)
class Commands:
    """The commands of one agent; `opened` notes those that are talked to."""

    connection: Connection
    opened: OpenCommands

    async def run(self, container: Container, command: Sequence[str], timeout: float) -> ExecResult:
        """What `DeployBackend.exec` promises. A command that does not exist ends with 127, as in a shell."""
        connection = self.connection
        try:
            session = await self._create(container, {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command)})
            output = asyncio.ensure_future(connection.in_lasting_thread(_output, connection, session))
            try:
                await _end_in_time(connection, container, session, output, command, timeout)
                text = output.result()
            finally:
                # What has not begun yet, for want of a thread, is not to begin for nobody.
                output.cancel()
            facts = await connection.call("GET", f"exec/{session}/json")
        except ApiError as error:
            return _not_started(error, container.id)
        return ExecResult(int(facts["ExitCode"]), text)

    async def open(self, container: Container, command: Sequence[str], terminal: TerminalSize | None) -> PodmanExec:
        """What `DeployBackend.open_exec` promises."""
        body = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Tty": terminal is not None}
        start: dict[str, object] = {"Detach": False, "Tty": terminal is not None}
        if terminal is not None:
            start |= {"h": terminal.rows, "w": terminal.columns}
        try:
            session = await self._create(container, {**body, "Cmd": list(command)})
            stream = await self.connection.hijack(f"exec/{session}/start", start)
        except ApiError as error:
            raise _refusal(error, container.id) from error
        return PodmanExec(self.connection, session, container, stream, self.opened, terminal=terminal is not None)

    async def _create(self, container: Container, body: dict[str, object]) -> str:
        body = {**body, "Env": list(container.environment)}
        answer = await self.connection.call("POST", f"containers/{container.id}/exec", body=body)
        return str(answer["Id"])


def _output(connection: Connection, session: str) -> bytes:
    with connection.stream("POST", f"exec/{session}/start", body={"Detach": False, "Tty": False}) as pieces:
        return payload(pieces, OUTPUT_LIMIT)


async def _end_in_time(
    connection: Connection,
    container: Container,
    session: str,
    output: "asyncio.Future[bytes]",
    command: Sequence[str],
    timeout: float,
) -> None:
    """Waits for the end of the output. Closing the connection would leave the process running, so it is killed."""
    try:
        done, _ = await asyncio.wait([output], timeout=timeout)
    except asyncio.CancelledError:
        await asyncio.shield(_kill(connection, container, session))
        raise
    if not done:
        await _kill(connection, container, session)
        await asyncio.wait([output], timeout=timeout)
        raise BackendError("ExecTimeout", f"{' '.join(command)} ran longer than {timeout:g} s", retryable=True)


async def _kill(connection: Connection, container: Container, session: str) -> None:
    with contextlib.suppress(ApiError):
        facts = await connection.call("GET", f"exec/{session}/json")
        if int(facts["Pid"]) > 0:
            await kill_command(int(facts["Pid"]), machine.own_group(container.pid, container.id))


def _not_started(error: ApiError, container_id: str) -> ExecResult:
    text = error.message.lower()
    if _is_not_running(error):
        raise not_running(container_id) from error
    if "executable file not found" in text or "no such file or directory" in text or "executable file `" in text:
        return ExecResult(NOT_FOUND, error.message.encode())
    if "permission denied" in text:
        return ExecResult(NOT_EXECUTABLE, error.message.encode())
    raise _refusal(error, container_id) from error


def _is_not_running(error: ApiError) -> bool:
    text = error.message.lower()
    return error.status in (404, 409) or "container is not running" in text or "can only create exec sessions" in text


def _refusal(error: ApiError, container_id: str) -> BackendError:
    if _is_not_running(error):
        return not_running(container_id)
    return BackendError("ExecFailed", f"podman cannot run the command: {error.message}", retryable=True)


def not_running(container_id: str) -> BackendError:
    return BackendError("NotRunning", f"container {container_id[:12]} does not run", retryable=True)
