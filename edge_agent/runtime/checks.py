"""Checks of readiness and liveness: asking an instance once whether it answers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from urllib.parse import quote

from edge_agent.runtime.backend import BackendError, BackendUnavailable, ExecResult, Observed
from edge_agent.runtime.model import Check, CommandProbe, HttpProbe, InferenceProbe
from edge_agent.runtime.threads import in_thread

Exec = Callable[[tuple[str, ...], float], Awaitable[ExecResult]]
# As `DeployBackend.listens`, for one instance.
Listens = Callable[[str], Awaitable[bool | None]]

# A server's answer is read so far, so that it does not see its connection break while it writes.
BODY_LIMIT = 64 * 1024
# What an instance prints goes into every status; brokers turn messages away that are too long.
LONGEST_SAID = 500
# A forwarder with nothing behind it closes a connection sooner than this.
FORWARDER_SECONDS = 0.25


@dataclass(frozen=True)
class Answer:
    """`said` is a sentence for people: what answered, or why nothing did."""

    ok: bool
    said: str


async def cannot_tell(_: str) -> bool | None:
    return None


async def ask(check: Check, observed: Observed, execute: Exec, listens: Listens = cannot_tell) -> Answer:
    """Asks once; never longer than the check's timeout, and never raises for what the instance does.

    `execute` runs a command inside the instance; `listens` tells whether it listens at a port of its own. Raises
    BackendUnavailable, which says nothing about the instance.
    """
    answer = await _ask_in_time(check, observed, execute, listens)
    return replace(answer, said=shortened(answer.said))


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST_SAID else f"{text[: LONGEST_SAID - 3]}..."


async def _ask_in_time(check: Check, observed: Observed, execute: Exec, listens: Listens) -> Answer:
    try:
        async with asyncio.timeout(check.timeout):
            return await _ask(check, observed, execute, listens)
    except TimeoutError:
        return Answer(False, f"timed out after {check.timeout:g} s")
    except ConnectionRefusedError:
        return Answer(False, "connection refused")
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return Answer(False, "connection closed without an answer")
    except OSError as error:
        return Answer(False, error.strerror or str(error))
    except BackendUnavailable:
        raise
    except BackendError as error:
        return Answer(False, error.message)


async def _ask(check: Check, observed: Observed, execute: Exec, listens: Listens) -> Answer:
    probe = check.probe
    if isinstance(probe, CommandProbe):
        return await _command(probe, check.timeout, execute)
    address = dict(observed.addresses).get(probe.port)
    if address is None:
        return Answer(False, f"port {probe.port} is not published")
    if isinstance(probe, HttpProbe):
        return await _http(probe, *address)
    if isinstance(probe, InferenceProbe):
        return await _inference(probe, check.timeout, *address)
    heard = await listens(probe.port)
    if heard is False:
        return Answer(False, f"nothing listens on port {probe.port}")
    return await _tcp(*address, patience=0.0 if heard else min(FORWARDER_SECONDS, check.timeout / 2))


async def _command(probe: CommandProbe, timeout: float, execute: Exec) -> Answer:
    result = await execute(probe.command, timeout)
    if result.exit_code == 0:
        return Answer(True, f"{probe.command[0]} ended with 0")
    output = result.output.decode(errors="replace").strip().splitlines()
    return Answer(False, f"{probe.command[0]} ended with {result.exit_code}" + (f": {output[-1]}" if output else ""))


async def _inference(probe: InferenceProbe, timeout: float, host: str, port: int) -> Answer:
    # Imported where it is used: few workloads have such a check, and it brings the HTTP client along.
    from edge_agent.runtime.inference import infer

    verdict = await in_thread(lambda: infer(probe, host, port, timeout))
    return Answer(verdict.ok, verdict.said)


async def _tcp(host: str, port: int, patience: float) -> Answer:
    """`patience`: how long the connection must last to count, where what accepts it may be a forwarder."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        if patience and await _ends_within(reader, patience):
            return Answer(False, f"port {port} closes each connection at once")
    finally:
        writer.transport.abort()
    return Answer(True, f"port {port} accepts connections")


async def _ends_within(reader: asyncio.StreamReader, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return not await reader.read(1)
    except TimeoutError:
        return False


async def _http(probe: HttpProbe, host: str, port: int) -> Answer:
    path = quote(probe.path, safe="/?&=%:;,+@!$'()*~#[]")
    reader, writer = await asyncio.open_connection(host, port)
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: longshore\r\nAccept: */*\r\n"
        writer.write(f"{request}Connection: close\r\n\r\n".encode())
        status = _status(await _line(reader))
        if status is None:
            return Answer(False, f"what answers on port {probe.port} does not speak HTTP")
        await _drain(reader)
        return Answer(200 <= status < 400, f"HTTP {status} from {probe.path}")
    finally:
        writer.transport.abort()


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        return b""


def _status(line: bytes) -> int | None:
    parts = line.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not (parts[1].isdigit() and len(parts[1]) == 3):
        return None
    return int(parts[1])


async def _drain(reader: asyncio.StreamReader) -> None:
    """Reads the rest of an answer, as long as that is short and quick; the status line was the answer."""
    length = 0
    try:
        async with asyncio.timeout(0.25):
            while (line := await _line(reader)).strip():
                name, _, value = line.partition(b":")
                if name.strip().lower() == b"content-length" and value.strip().isdigit():
                    length = int(value)
            await reader.readexactly(min(length, BODY_LIMIT))
    except (TimeoutError, asyncio.IncompleteReadError, OSError):
        pass
