"""What the backend tells of itself and of what runs, as fresh as is needed, and whether it answers at all."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from edge_agent.runtime.backend import (
    BackendError,
    BackendFacts,
    BackendUnavailable,
    Capabilities,
    DeployBackend,
    Observed,
)
from edge_agent.runtime.clock import Clock

log = structlog.get_logger()

LIST_TIMEOUT = 30.0
FIRST_RETRY = 1.0
SLOWEST_RETRY = 30.0
# A backend that cannot work is looked at again so often.
PROBE_AGAIN = 60.0
NOTHING_KNOWN = Capabilities(artifacts=frozenset())


class Observer:
    """`observed` is None until the backend has answered once; when it stops answering, the last answer stays.

    `changed` is called when `problem` or `facts` changed; `wake` when there is a reason to look again.
    """

    def __init__(
        self,
        backend: DeployBackend,
        clock: Clock,
        resync: float,
        changed: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._resync = resync
        self._changed = changed
        self._wake = wake
        self.observed: tuple[Observed, ...] | None = None
        self.facts: BackendFacts | None = None
        self.problem = ""
        # When to list next (monotonic).
        self.next_look = 0.0
        self._failures = 0
        self._probe_again = asyncio.Event()
        self._serial = 0
        self._unsettled: dict[str, int] = {}

    @property
    def able(self) -> bool:
        """Whether `observed` can be acted on."""
        return self.observed is not None and not self.problem

    def unsettled(self, deployment_id: str) -> bool:
        """Whether something was done for this deployment since the backend was last asked."""
        return deployment_id in self._unsettled

    def unsettle(self, deployment_id: str) -> None:
        """Something was done for this deployment: what is known of it is out of date."""
        self._serial += 1
        self._unsettled[deployment_id] = self._serial
        self.look_soon()

    def look_soon(self) -> None:
        self.next_look = min(self.next_look, self._clock().monotonic)
        self._wake()

    async def refresh(self) -> None:
        """Asks the backend if it is time to."""
        now = self._clock().monotonic
        if now < self.next_look:
            return
        # Set before asking: whatever happens meanwhile may bring it forward again.
        self.next_look = now + self._resync
        serial = self._serial
        try:
            async with asyncio.timeout(LIST_TIMEOUT):
                observed = tuple(await self._backend.list())
        except TimeoutError:
            self.down(BackendUnavailable("BackendUnavailable", f"no answer within {LIST_TIMEOUT:g} s"))
        except BackendError as error:
            self.down(error)
        except Exception as error:  # noqa: BLE001 - logged with its traceback there
            self.down(_crashed("list", error))
        else:
            self.observed = observed
            self._unsettled = {key: mark for key, mark in self._unsettled.items() if mark > serial}
            self._up()

    def down(self, error: BackendError) -> None:
        """The backend does not answer: nothing is concluded, and it is asked again after a while."""
        delay = min(SLOWEST_RETRY, FIRST_RETRY * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self.next_look = self._clock().monotonic + delay
        problem = f"{error.reason}: {error.message}"
        if problem != self.problem:
            log.warning("backend_unavailable", reason=error.reason, message=error.message)
            self.problem = problem
            self._probe_again.set()
            self._changed()
        self._wake()

    def _up(self) -> None:
        self._failures = 0
        if self.problem:
            log.info("backend_answers_again")
            self.problem = ""
            self._probe_again.set()
            self._changed()

    async def keep_facts(self) -> None:
        """Learns the backend's facts, and again whenever they may have changed. Runs until cancelled."""
        while True:
            self._probe_again.clear()
            facts = await self._probe()
            if facts != self.facts:
                self.facts = facts
                self._changed()
            with suppress(TimeoutError):
                async with asyncio.timeout(PROBE_AGAIN if facts.problem else None):
                    await self._probe_again.wait()

    async def _probe(self) -> BackendFacts:
        try:
            return await self._backend.probe()
        except Exception as error:  # noqa: BLE001 - logged with its traceback there
            failure = _crashed("probe", error)
            problem = f"{failure.reason}: {failure.message}"
            return replace(self.facts, problem=problem) if self.facts else BackendFacts("", "", NOTHING_KNOWN, problem)

    async def keep_watching(self) -> None:
        """Looks again soon after each hint of the backend. Runs until cancelled."""
        pause = FIRST_RETRY
        while True:
            try:
                async for _ in self._backend.watch():
                    pause = FIRST_RETRY
                    self.look_soon()
            except BackendError as error:
                log.debug("watch_ended", reason=error.reason)
            except Exception as error:  # noqa: BLE001 - logged with its traceback there
                # Without hints, what runs is still looked at now and then.
                _crashed("watch", error)
                pause = min(SLOWEST_RETRY, 2 * pause)
            await asyncio.sleep(pause)


def _crashed(verb: str, error: Exception) -> BackendError:
    """A fault of ours in a backend: it must not end the agent, which would meet it again in its next life."""
    log.exception("backend_crashed", verb=verb)
    message = f"the agent failed at {verb}: {type(error).__name__}: {error}"
    return BackendError("AgentError", message, retryable=True)
