"""Tasks that belong together end together."""

import asyncio

import pytest

from edge_agent.runtime.together import together

pytestmark = pytest.mark.asyncio


async def endless() -> None:
    await asyncio.Event().wait()


async def failing() -> None:
    raise ValueError("this one")


async def test_failure_of_one_ends_the_others_and_is_what_is_raised() -> None:
    tasks = [asyncio.create_task(endless()), asyncio.create_task(failing())]
    async with asyncio.timeout(20):
        with pytest.raises(ValueError, match="this one"):
            await together(tasks)
    assert tasks[0].cancelled()


async def test_caller_that_is_cancelled_leaves_none_that_runs() -> None:
    tasks = [asyncio.create_task(endless()), asyncio.create_task(endless())]
    caller = asyncio.create_task(together(tasks))
    await asyncio.sleep(0)
    caller.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(caller, return_exceptions=True)
    assert caller.cancelled()
    assert all(task.cancelled() for task in tasks)


async def test_all_that_succeed_have_their_results() -> None:
    tasks = [asyncio.create_task(asyncio.sleep(0, number)) for number in range(3)]
    await together(tasks)
    assert [task.result() for task in tasks] == [0, 1, 2]
