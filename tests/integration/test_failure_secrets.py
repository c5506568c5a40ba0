"""What a failure says of a request's secrets, whoever said it: nothing."""

from pathlib import Path

from controller.builds.model import BuildFailed, BuildState
from controller.builds.service import BuildRequest
from tests.support.queueing import SPEC, ScriptedBuilder, open_bench
from tests.support.rows import PROJECT

SECRET = "hunter22"


async def test_a_failure_that_repeats_a_secret_says_it_nowhere(tmp_path: Path) -> None:
    """Not in the build, not in an event, not in the log."""
    builder = ScriptedBuilder()
    builder.failures = [
        BuildFailed("StepFailed", f"curl says {SECRET}", step=f"RUN curl -u {SECRET}", last_lines=(f"bad {SECRET}",))
    ]
    builder.gate.set()
    spec = SPEC + b"build: {secrets: [token]}\n"
    async with open_bench(tmp_path, builder, reuse_hours=0) as bench:
        made = await bench.service().create(BuildRequest(PROJECT, spec, secrets={"token": SECRET.encode()}))
        async with bench.working():
            ended = await bench.reaches(made.id, BuildState.FAILED)
        events, _ = await bench.store.transact(lambda tx: tx.events.after(PROJECT, 0))
        lines = await bench.lines(made.id)
    target = ended.targets[0]
    assert (target.message, target.failed_step, target.last_lines) == ("curl says ***", "RUN curl -u ***", ("bad ***",))
    assert SECRET not in str(events)
    assert SECRET not in str(lines)
