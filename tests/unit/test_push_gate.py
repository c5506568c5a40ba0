"""No push is under way while the registry frees space."""

import asyncio

from controller.volumes.gate import PushGate


async def test_whoever_wants_to_be_alone_waits_for_pushes_and_holds_up_later_ones() -> None:
    gate, order = PushGate(), list[str]()
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with gate.push():
            begun.set()
            await may_end.wait()
            order.append("first push ends")

    async def collect() -> None:
        order.append("collects")

    async def later() -> None:
        async with gate.push():
            order.append("later push begins")

    pushing = asyncio.create_task(first())
    await begun.wait()
    guarded = gate.guarding(collect)
    assert guarded is not None
    collecting = asyncio.ensure_future(guarded())
    await asyncio.sleep(0)
    last = asyncio.create_task(later())
    for _ in range(10):
        await asyncio.sleep(0)
    assert order == []
    may_end.set()
    await asyncio.wait_for(asyncio.gather(pushing, collecting, last), 60)
    assert order == ["first push ends", "collects", "later push begins"]


async def test_a_push_or_a_collection_that_breaks_holds_up_nobody() -> None:
    gate = PushGate()
    for enter in (gate.push, gate.alone):
        try:
            async with enter():
                raise RuntimeError
        except RuntimeError:
            pass
    async with asyncio.timeout(60), gate.alone():
        pass
    async with asyncio.timeout(60), gate.push():
        pass
