"""One cycle after another: something is wished or happens, the agent is killed meanwhile, and all ends as it should."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from longshore.v1 import deployment_pb2
from tests.support.fault_site import FaultSite
from tests.support.site import status_of

# Within so many seconds from its beginning, most of what is tried is done.
WORK_SECONDS = 1.8
# An agent that was just started is killed again before it has adopted everything.
AGAIN = 0.25
START_SECONDS = 1.5
VERSIONS = 3


class Cycles:
    """A service that changes beside one that nothing may disturb."""

    def __init__(self, fault_site: FaultSite, chance: random.Random) -> None:
        self._faulty = fault_site
        self._site = fault_site.site
        self._chance = chance
        self._builds: list[str] = []
        self._number = 0
        # What the changing service has to come back to.
        self._answer, self._state = "", ("READY", "")
        self._steady: deployment_pb2.Deployment | None = None
        self._changing: deployment_pb2.Deployment | None = None
        self._tried: list[str] = []
        self._table: tuple[tuple[Callable[[], Awaitable[None]], int], ...] = (
            (self._update, 5),
            (self._fetch_and_update, 3),
            (self._fail_and_return, 2),
            (self._leave_and_come_back, 2),
            (self._lose_instance, 1),
        )

    @staticmethod
    @asynccontextmanager
    async def prepared(fault_site: FaultSite, chance: random.Random) -> AsyncIterator["Cycles"]:
        """With both services running; afterwards nothing of them is left."""
        cycles = Cycles(fault_site, chance)
        await cycles._prepare()
        yield cycles
        for deployment in (cycles.changing, cycles.steady):
            await cycles._site.delete(deployment)
        await fault_site.holds_only([])

    @property
    def changing(self) -> deployment_pb2.Deployment:
        assert self._changing is not None
        return self._changing

    @property
    def steady(self) -> deployment_pb2.Deployment:
        assert self._steady is not None
        return self._steady

    async def turn(self) -> None:
        """One cycle. Whatever it was, one instance of each service runs then, and answers."""
        self._number += 1
        (act,) = self._chance.choices([act for act, _ in self._table], [weight for _, weight in self._table])
        self._tried.append(act.__name__)
        await act()
        await self._faulty.holds_only([self.changing.id, self.steady.id])
        assert status_of(await self._site.state(self.steady)).restarts == 0, self._tried[-5:]

    async def all_is_well(self) -> None:
        """Nothing is left on the device that belongs to nothing, and no number is missing."""
        await self._faulty.converges(self.steady, "steady")
        await self._faulty.holds_only([self.changing.id, self.steady.id], tidied=True, seconds=120)
        await self._faulty.journal_is_whole()

    async def _prepare(self) -> None:
        for number in range(VERSIONS):
            text = self._faulty.spec("changing").replace("build:\n", f"build:\n  workdir: /version-{number}\n")
            self._builds.append(await self._site.build(text))
        self._steady = await self._faulty.deploy(self._faulty.spec("steady", ANSWER="steady"))
        await self._wish(self._builds[0])
        await self._faulty.converges(self.steady, "steady")
        await self._faulty.converges(self.changing, self._answer)

    async def _wish(self, build_id: str) -> None:
        self._answer, self._state = f"answer-{self._number}", ("READY", "")
        self._changing = await self._faulty.deploy(self._faulty.spec("changing", ANSWER=self._answer), build_id)

    async def _killed(self) -> None:
        """The agent dies at some moment of what was begun, and perhaps again while it takes that up."""
        await asyncio.sleep(self._chance.uniform(0, WORK_SECONDS))  # a random moment is the point of the test
        await self._site.stop_agent(kill=True)
        await self._site.start_agent()
        if self._chance.random() < AGAIN:
            await asyncio.sleep(self._chance.uniform(0, START_SECONDS))  # likewise
            await self._site.stop_agent(kill=True)
            await self._site.start_agent()

    async def _came_back(self) -> None:
        await self._faulty.converges(self.changing, self._answer, *self._state)

    async def _update(self) -> None:
        await self._wish(self._builds[0])
        await self._killed()
        await self._came_back()

    async def _fetch_and_update(self) -> None:
        await self._wish(self._chance.choice(self._builds))
        await self._killed()
        await self._came_back()

    async def _fail_and_return(self) -> None:
        bad = self._faulty.spec("changing", deadline="1s", MODE="never-ready")
        self._state, said = ("FAILED", "RolledBack"), await self._faulty.deploy(bad, self._builds[0])
        await self._killed()
        words = f"revision {said.revision} was given up"
        await self._site.eventually(self.changing, lambda found: words in found.deployment.message, 120, words)
        await self._came_back()

    async def _leave_and_come_back(self) -> None:
        await self._site.call(self._site.client.delete, self.changing.id)
        await self._killed()
        await self._site.reaches(self.changing, "DELETED")
        await self._wish(self._chance.choice(self._builds))
        await self._came_back()

    async def _lose_instance(self) -> None:
        await self._faulty.kill_instance(self.changing)
        await self._killed()
        await self._came_back()
