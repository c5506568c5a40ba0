"""Requests on their way from one thread to gRPC's."""

import threading

from longshore.outbox import MOST_WAITING, Outbox
from tests.support.waiting import eventually


def test_requests_come_in_order_behind_the_first_until_the_end() -> None:
    box = Outbox("first")
    box.put_urgent("urgent")
    assert box.put("a")
    assert box.put("b")
    box.finish()
    assert list(box) == ["first", "urgent", "a", "b"]
    assert not box.put("too late")


def test_of_urgent_ones_the_last_counts() -> None:
    box = Outbox("first")
    for size in ("small", "large"):
        box.put_urgent(size)
    box.put("a")
    assert [next(box), next(box), next(box)] == ["first", "large", "a"]


def test_giver_waits_while_many_wait_and_goes_on_when_one_is_taken() -> None:
    box = Outbox("first")
    given: list[int] = []

    def give() -> None:
        for number in range(3 * MOST_WAITING):
            if not box.put(str(number)):
                return
            given.append(number)

    giving = threading.Thread(target=give)
    giving.start()
    eventually(lambda: len(given) == MOST_WAITING)
    assert next(box) == "first"
    assert [next(box) for _ in range(MOST_WAITING)] == [str(number) for number in range(MOST_WAITING)]
    eventually(lambda: len(given) == 2 * MOST_WAITING)
    box.close()
    giving.join(10)
    assert not giving.is_alive()


def test_taker_waits_and_ends_when_the_box_is_closed() -> None:
    box = Outbox("first")
    taken: list[str] = []
    taking = threading.Thread(target=lambda: taken.extend(box))
    taking.start()
    eventually(lambda: taken == ["first"])
    box.close()
    taking.join(10)
    assert taken == ["first"]
