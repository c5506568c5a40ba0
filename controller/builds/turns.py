"""How a target changes with a try: when its turn comes, and by what the try ended with."""

import time
from dataclasses import replace

from controller.builds.model import Build, BuildFailed, BuildResult, BuildState, BuildTarget
from controller.builds.recording import cancelled, existing, existing_target, record
from controller.store import Transaction

RETRY_FIRST = 2.0
RETRY_LONGEST = 60.0
# So often it is tried in any case: a first try may take longer than there is time for tries.
LEAST_TRIES = 3


def claim(tx: Transaction, build_id: str, key: str) -> tuple[Build, BuildTarget] | None:
    """The target, begun from now on; None where it does not wait any more."""
    build, target = existing_target(tx, build_id, key)
    if target.state is not BuildState.QUEUED or build.cancel_requested:
        return None
    now = time.time()
    target = replace(
        target, state=BuildState.PREPARING, reason="", message="", failed_step="", last_lines=(), next_try=0.0,
        attempts=target.attempts + 1, started=target.started or now,
    )  # fmt: skip
    tx.queue.serve(build.user_id, now)
    return record(tx, build_id, target), target


def store_outcome(tx: Transaction, build_id: str, outcome: BuildTarget) -> None:
    """The end of a try. What would be tried again is cancelled where somebody asked for that meanwhile."""
    if outcome.done:
        outcome = replace(outcome, ended=time.time())
    elif existing(tx, build_id).cancel_requested:
        outcome = cancelled(outcome)
    record(tx, build_id, outcome)


def succeeded(target: BuildTarget, result: BuildResult) -> BuildTarget:
    """The target with what the builder made."""
    made = replace(target, artifact=result.artifact, notes=result.notes, host=result.host)
    return replace(made, state=BuildState.SUCCEEDED, reason="", message="")


def failed(target: BuildTarget, failure: BuildFailed, retry_seconds: float) -> BuildTarget:
    """Tried again later, where that may help and was not tried for too long."""
    ended = replace(
        target, reason=failure.reason, message=failure.message, failed_step=failure.step, last_lines=failure.last_lines
    )
    now = time.time()
    if not failure.retryable:
        return replace(ended, state=BuildState.FAILED)
    if now - target.started >= retry_seconds and target.attempts >= LEAST_TRIES:
        text = f"{failure.message} (given up after {target.attempts} tries)"
        return replace(ended, state=BuildState.FAILED, message=text)
    delay = min(RETRY_LONGEST, RETRY_FIRST * 2 ** min(target.attempts - 1, 10))
    return replace(ended, state=BuildState.QUEUED, next_try=now + delay)
