"""Whose turn it is: fair between users, in the order of age for each."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from controller.builds.model import ArtifactKind
from controller.builds.order import Load, Waiting, in_order, next_to_begin, positions

USERS = ("alice", "bob", "carol")
LOADS = st.builds(
    Load,
    st.dictionaries(st.sampled_from(USERS), st.integers(0, 3)),
    st.dictionaries(st.sampled_from(USERS), st.floats(0, 100)),
)


@st.composite
def waits(draw: st.DrawFn) -> list[Waiting]:
    asked = draw(
        st.lists(st.tuples(st.sampled_from(USERS), st.sampled_from(("x86-cpu", "arm64-cpu")), st.integers(0, 9)))
    )
    return [one(number, user, profile, float(age)) for number, (user, profile, age) in enumerate(asked)]


def one(number: int, user: str = "alice", profile: str = "x86-cpu", created: float = 0.0) -> Waiting:
    return Waiting(f"b-{number}", profile, user, profile, ArtifactKind.IMAGE, created or float(number))


def anything(_: Waiting) -> bool:
    return True


@given(waits(), LOADS)
def test_everything_begins_exactly_once(waiting: list[Waiting], load: Load) -> None:
    assert Counter(in_order(waiting, load)) == Counter(waiting)
    assert sorted(positions(waiting, load).values()) == list(range(1, len(waiting) + 1))


@given(waits(), LOADS)
def test_of_one_user_the_oldest_begins_first(waiting: list[Waiting], load: Load) -> None:
    for user in USERS:
        ages = [each.age for each in in_order(waiting, load) if each.user_id == user]
        assert ages == sorted(ages)


@given(waits(), LOADS)
def test_the_order_is_the_one_in_which_the_queue_lets_begin(waiting: list[Waiting], load: Load) -> None:
    order, left = list(in_order(waiting, load)), list(waiting)
    running, served = Counter(load.running), dict(load.served)
    for number, expected in enumerate(order):
        found = next_to_begin(left, Load(running, served), 1000, anything)
        assert found == expected
        left.remove(expected)
        running[expected.user_id] += 1
        served[expected.user_id] = 1000.0 + number


@given(waits(), LOADS, st.integers(1, 3))
def test_no_user_gets_more_than_a_user_may_and_nothing_that_must_wait_begins(
    waiting: list[Waiting], load: Load, per_user: int
) -> None:
    found = next_to_begin(waiting, load, per_user, lambda each: each.profile == "x86-cpu")
    able = [w for w in waiting if w.profile == "x86-cpu" and load.running.get(w.user_id, 0) < per_user]
    assert (found is None) == (not able)
    if found is not None:
        assert found in able
        fewest = min(load.running.get(each.user_id, 0) for each in able)
        assert load.running.get(found.user_id, 0) == fewest


def test_another_ones_first_is_not_behind_a_thousand_of_one_user() -> None:
    waiting = [*(one(number) for number in range(1000)), one(2000, "bob")]
    assert positions(waiting, Load())["b-2000", "x86-cpu"] == 2


def test_who_was_served_longest_ago_goes_first() -> None:
    waiting = [one(1, "alice"), one(2, "bob")]
    load = Load({}, {"alice": 10.0, "bob": 5.0})
    assert [each.user_id for each in in_order(waiting, load)] == ["bob", "alice"]
