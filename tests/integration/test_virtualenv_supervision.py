"""Processes that run on whatever becomes of the agent and of those that watch over them, with all they write."""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from edge_agent.runtime.backend import Handle, LogQuery, Phase, TerminalSize
from edge_agent.runtime.model import Port
from tests.contract.machine import await_lines, ignore
from tests.integration.virtualenv_fixtures import POLITE, LocalMachine, artifact, machine, shop
from tests.support.async_waiting import until
from tests.support.long_logs import LINES, breaks, read_in_parts, writes_in_parts

__all__ = ["artifact", "machine", "shop"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("virtualenv-local"),
    pytest.mark.asyncio(loop_scope="module"),
]
COUNTS = "trap 'exit 4' TERM; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.01; done"


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


async def kill_and_wait(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)
    await until(lambda: not alive(pid))


async def test_supervisor_that_is_killed_is_replaced_and_no_line_is_lost(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload(COUNTS))
    await await_lines(machine.backend, handle, 20)
    first = machine.supervisor(handle)
    await kill_and_wait(first)
    (seen,) = await machine.backend.list()
    assert (seen.handle, seen.phase) == (handle, Phase.RUNNING)
    second = machine.supervisor(handle)
    assert second != first
    assert alive(second)
    lines = await await_lines(machine.backend, handle, len(await machine.lines(handle)) + 20)
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
    await machine.backend.stop(handle, 5)
    assert (await machine.end_of(handle)).exit_code == 4


async def test_supervisor_and_agent_that_are_both_killed_are_both_replaced(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload(POLITE))
    await machine.restart()
    await kill_and_wait(machine.supervisor(handle))
    hints = aiter(machine.backend.watch())
    hint = asyncio.ensure_future(anext(hints))
    await machine.backend.list()
    os.kill(machine.started(handle)["pid"], signal.SIGKILL)
    async with asyncio.timeout(5):
        await hint
    assert (await machine.end_of(handle)).exit_code == 137


async def test_end_that_nobody_watched_is_known_from_the_sandbox(machine: LocalMachine) -> None:
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 1000 & wait; done"
    handle = await machine.launch(machine.workload(script))
    await await_lines(machine.backend, handle, 1)
    await kill_and_wait(machine.supervisor(handle))
    await kill_and_wait(machine.started(handle)["pid"], signal.SIGTERM)
    seen = await machine.end_of(handle)
    assert (seen.exit_code, seen.exit_reason) == (9, "")
    assert seen.finished_at >= seen.started_at


async def test_end_of_which_nothing_is_known_says_who_was_lost(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload())
    started = machine.started(handle)
    for pid in (machine.supervisor(handle), started["child"], started["init"]):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not alive(started["pid"]))
    seen = await machine.end_of(handle)
    assert (seen.exit_code, seen.exit_reason) == (None, "MonitorLost")


async def test_machine_that_is_shut_down_does_not_pass_for_a_failure(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload())
    # As the last act of an init: everybody is asked to end.
    os.kill(machine.supervisor(handle), signal.SIGTERM)
    os.kill(machine.started(handle)["pid"], signal.SIGTERM)
    seen = await machine.end_of(handle)
    assert (seen.exit_code, seen.exit_reason) == (None, "PowerLost")


async def test_power_cut_is_told_by_the_life_of_the_machine(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload())
    started = machine.started(handle)
    for pid in (machine.supervisor(handle), started["child"], started["init"]):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not alive(started["pid"]))
    record = machine.folder(handle) / "instance.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "boot": "before"}))
    seen = await machine.end_of(handle)
    assert (seen.exit_code, seen.exit_reason) == (None, "PowerLost")


async def test_another_process_of_the_same_number_is_not_taken_for_the_workload(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload("exit 0"))
    await machine.end_of(handle)
    (machine.folder(handle) / "ended").unlink()
    record = machine.folder(handle) / "started"
    record.write_text(json.dumps({**machine.started(handle), "pid": os.getpid(), "init": 0}))
    (seen,) = await machine.backend.list()
    assert seen.phase is Phase.EXITED
    await machine.backend.stop(handle, 0)
    await machine.backend.remove(handle)


async def test_start_that_a_killed_agent_left_half_done_is_swept(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload())
    await machine.backend.stop(handle, 5)
    half = machine.state / "instances" / "half-done"
    half.mkdir()
    record = json.loads((machine.folder(handle) / "instance.json").read_text())
    (half / "instance.json").write_text(json.dumps({**record, "id": "half-done"}))
    assert [seen.handle for seen in await machine.backend.list()] == [handle]
    assert not half.exists()


@pytest.mark.parametrize("left", [bytes(400), b"", None], ids=["zeros", "nothing in it", "no file"])
async def test_start_that_a_power_cut_left_without_a_record_is_swept(machine: LocalMachine, left: bytes | None) -> None:
    handle = await machine.launch(machine.workload())
    torn = machine.state / "instances" / "torn"
    torn.mkdir()
    if left is not None:
        (torn / "instance.json").write_bytes(left)
    await machine.restart()
    assert [seen.handle for seen in await machine.backend.list()] == [handle]
    assert not torn.exists()


async def test_record_that_cannot_be_read_stops_nothing_else(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload())
    broken = machine.state / "instances" / "broken"
    broken.mkdir()
    (broken / "instance.json").write_text('{"form": 99}')
    assert [seen.handle for seen in await machine.backend.list()] == [handle]
    assert await machine.backend.list() != []
    assert broken.exists()


async def test_whatever_a_workload_left_behind_ends_with_it(machine: LocalMachine) -> None:
    script = "setsid sleep 4321 & sleep 0.2; exit 3"
    handle = await machine.launch(machine.workload(script))
    assert (await machine.end_of(handle)).exit_code == 3
    await until(lambda: "sleep\x004321" not in command_lines())


def command_lines() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_text(errors="replace"))
    return "\n".join(found)


async def test_follower_loses_no_line_when_the_log_is_rotated_and_the_log_stays_small(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload(writes_in_parts() + POLITE))
    async with contextlib.aclosing(machine.backend.logs(handle, LogQuery(follow=True))) as lines:
        numbers = await read_in_parts(machine, handle, lines)
    assert (numbers[0], breaks(numbers)) == (1, [])
    sizes = [path.stat().st_size for path in machine.folder(handle).glob("log*")]
    assert len(sizes) == 2
    assert sum(sizes) <= 10 * 2**20
    kept = [int(text.split()[0]) for text in await machine.lines(handle)]
    assert (breaks(kept), kept[-1]) == ([], numbers[-1])
    assert kept[0] < numbers[-1] - LINES


async def test_lines_of_any_length_and_both_streams_are_kept(machine: LocalMachine) -> None:
    script = f"head -c 100000 /dev/zero | tr '\\0' a; echo; echo problem >&2; printf unfinished; {POLITE}"
    handle = await machine.launch(machine.workload(script))
    await await_lines(machine.backend, handle, 2)
    await machine.backend.stop(handle, 5)
    found = {(line.stream, line.text) async for line in machine.backend.logs(handle, LogQuery())}
    assert found == {("stdout", "a" * 100000), ("stderr", "problem"), ("stdout", "unfinished")}


async def test_workload_that_writes_more_than_anybody_reads_goes_on(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload("yes | head -c 5000000; exit 6"))
    assert (await machine.end_of(handle)).exit_code == 6


async def test_removal_ends_a_supervisor_that_hangs(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload())
    supervisor = machine.supervisor(handle)
    os.kill(supervisor, signal.SIGSTOP)
    await machine.backend.remove(handle)
    assert await machine.backend.list() == []
    await until(lambda: not alive(supervisor))


async def test_ports_are_told_to_the_service(machine: LocalMachine) -> None:
    ports = (Port("http", 18123), Port("health-check", 18124))
    first = await machine.launch(machine.workload(ports=ports))
    told = await machine.inside(first, "echo $PORT $LONGSHORE_PORT_HTTP $LONGSHORE_PORT_HEALTH_CHECK")
    assert told == "18123 18123 18124"
    second = await machine.launch(machine.workload(ports=ports))
    numbers = (await machine.inside(second, "echo $PORT $LONGSHORE_PORT_HEALTH_CHECK")).split()
    assert len({"18123", "18124", *numbers}) == 4
    seen = {one.handle: dict(one.addresses) for one in await machine.backend.list()}
    assert seen[second]["http"] == ("127.0.0.1", int(numbers[0]))


async def test_port_that_is_reserved_for_another_instance_is_in_use(machine: LocalMachine) -> None:
    await machine.launch(machine.workload(ports=(Port("http", 18125, 18125),)))
    error = await machine.refusal(machine.workload(ports=(Port("web", 18125, 18125),)))
    assert (error.reason, error.retryable) == ("PortInUse", True)
    assert "18125 (web)" in error.message


async def session_output(machine: LocalMachine, handle: Handle, *command: str, given: bytes = b"") -> tuple[int, bytes]:
    session = await machine.backend.open_exec(handle, command, None)
    output = bytearray()

    async def give() -> None:
        await session.write(given)
        await session.write(b"")

    async def take() -> None:
        while (piece := await session.read()) is not None:
            output.extend(piece[1])

    await asyncio.gather(give(), take())
    code = await session.wait()
    await session.close()
    return code, bytes(output)


async def test_command_takes_input_and_gives_output(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload())
    large = bytes(range(256)) * 8000
    assert await session_output(machine, handle, "cat", given=large) == (0, large)
    assert (await session_output(machine, handle, "sh", "-c", "echo oops >&2; kill -9 $$"))[0] == 137
    code, output = await session_output(machine, handle, "nonesuch")
    assert code == 127
    assert b"nonesuch" in output


async def test_command_has_neither_the_umask_of_the_agent_nor_its_claim_to_memory(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload())
    claim = Path("/proc/self/oom_score_adj")
    before = claim.read_text()
    # A machine may not let even root have less; the umask is that of the fixture.
    claim.write_text("500")
    try:
        assert await machine.inside(handle, "umask; cat /proc/self/oom_score_adj") == "0022\n0"
    finally:
        claim.write_text(before)


async def test_command_has_a_terminal_of_the_size_that_was_asked_for(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload())
    session = await machine.backend.open_exec(handle, ["sh"], TerminalSize(rows=33, columns=111))
    seen = b""

    async def until_seen(text: bytes) -> None:
        nonlocal seen
        async with asyncio.timeout(20):
            while text not in seen:
                piece = await session.read()
                assert piece is not None, seen
                seen += piece[1]

    await session.write(b"stty size; test -t 0 && echo a ter''minal\n")
    await until_seen(b"33 111")
    await until_seen(b"a terminal")
    await session.resize(TerminalSize(rows=44, columns=99))
    await session.write(b"stty size\n")
    await until_seen(b"44 99")
    await session.write(b"exit 5\n")
    assert await session.wait() == 5
    await session.close()


@pytest.mark.parametrize("terminal", [None, TerminalSize()], ids=["pipes", "terminal"])
async def test_closing_a_session_leaves_nothing_of_its_command(
    machine: LocalMachine, terminal: TerminalSize | None
) -> None:
    handle = await machine.launch(machine.workload())
    marker = str(70_000 + next(MARKERS))
    session = await machine.backend.open_exec(handle, ["sleep", marker], terminal)
    await until(lambda: f"sleep\0{marker}" in command_lines())
    await session.close()
    await until(lambda: f"sleep\0{marker}" not in command_lines())
    assert [seen.phase for seen in await machine.backend.list()] == [Phase.RUNNING]


MARKERS = itertools.count()


async def test_session_of_an_instance_that_ends_ends_with_it(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload())
    marker = str(70_000 + next(MARKERS))
    session = await machine.backend.open_exec(handle, ["sleep", marker], None)
    # Itself, and not those that bring it inside.
    await until(lambda: f"\nsleep\0{marker}" in command_lines())
    await machine.backend.stop(handle, 5)
    async with asyncio.timeout(10):
        assert await session.wait() == 137
    await session.close()


async def test_cancelled_start_leaves_nothing(machine: LocalMachine) -> None:
    workload = machine.workload()
    await machine.backend.prepare(workload, ignore)
    for delay in (0.0, 0.01, 0.05):
        task = asyncio.create_task(machine.backend.start(workload))
        await asyncio.sleep(delay)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, Handle):
            await machine.backend.remove(outcome)
        assert await machine.backend.list() == []


async def test_supervisor_that_cannot_be_replaced_hides_no_instance(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload())
    await kill_and_wait(machine.supervisor(handle))
    lock = machine.folder(handle) / "lock"
    lock.unlink()
    lock.mkdir()
    assert [(seen.handle, seen.phase) for seen in await machine.backend.list()] == [(handle, Phase.RUNNING)]


async def test_removal_that_an_agent_did_not_live_to_end_is_ended_by_the_next(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload())
    (machine.folder(handle) / "root").mkdir()
    # As far as it comes until the first file is gone.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(Killed):
            await machine.backend.remove(handle)
    assert await machine.backend.list() == []
    await machine.restart()
    assert await machine.backend.list() == []
    assert list((machine.state / "instances").iterdir()) == []


class Killed(BaseException):
    """In place of the signal."""


def killed(*_: object, **__: object) -> None:
    raise Killed
