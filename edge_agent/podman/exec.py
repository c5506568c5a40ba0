"""A command inside a running container."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

from edge_agent.podman.connection import Connection
from edge_agent.podman.errors import ApiError
from edge_agent.podman.frames import payload
from edge_agent.runtime.backend import BackendError, ExecResult

OUTPUT_LIMIT = 1024 * 1024
# Exit codes of a shell for what cannot be run.
NOT_EXECUTABLE, NOT_FOUND = 126, 127


async def run(connection: Connection, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
    """What `DeployBackend.exec` promises. A command that does not exist ends with 127, as in a shell."""
    body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command)}
    try:
        session = (await connection.call("POST", f"containers/{container_id}/exec", body=body))["Id"]
        output = asyncio.ensure_future(connection.in_lasting_thread(_output, connection, session))
        try:
            await _end_in_time(connection, session, output, command, timeout)
            text = output.result()
        finally:
            # What has not begun yet, for want of a thread, is not to begin for nobody.
            output.cancel()
        facts = await connection.call("GET", f"exec/{session}/json")
    except ApiError as error:
        return _not_started(error, container_id)
    return ExecResult(int(facts["ExitCode"]), text)


def _output(connection: Connection, session: str) -> bytes:
    with connection.stream("POST", f"exec/{session}/start", body={"Detach": False, "Tty": False}) as pieces:
        return payload(pieces, OUTPUT_LIMIT)


async def _end_in_time(
    connection: Connection, session: str, output: "asyncio.Future[bytes]", command: Sequence[str], timeout: float
) -> None:
    """Waits for the end of the output. Closing the connection would leave the process running, so it is killed."""
    try:
        done, _ = await asyncio.wait([output], timeout=timeout)
    except asyncio.CancelledError:
        await asyncio.shield(_kill(connection, session))
        raise
    if not done:
        await _kill(connection, session)
        await asyncio.wait([output], timeout=timeout)
        raise BackendError("ExecTimeout", f"{' '.join(command)} ran longer than {timeout:g} s", retryable=True)


async def _kill(connection: Connection, session: str) -> None:
    with contextlib.suppress(ApiError, ProcessLookupError):
        pid = int((await connection.call("GET", f"exec/{session}/json"))["Pid"])
        if pid > 0:
            os.kill(pid, signal.SIGKILL)


def _not_started(error: ApiError, container_id: str) -> ExecResult:
    text = error.message.lower()
    if error.status in (404, 409) or "container is not running" in text or "can only create exec sessions" in text:
        raise BackendError("NotRunning", f"container {container_id[:12]} does not run", retryable=True) from error
    if "executable file not found" in text or "no such file or directory" in text or "executable file `" in text:
        return ExecResult(NOT_FOUND, error.message.encode())
    if "permission denied" in text:
        return ExecResult(NOT_EXECUTABLE, error.message.encode())
    raise BackendError("ExecFailed", f"podman cannot run the command: {error.message}", retryable=True) from error
