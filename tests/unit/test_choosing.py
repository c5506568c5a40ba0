"""Which builder host gets a build."""

from hypothesis import given
from hypothesis import strategies as st

from controller.builds.choosing import Choice, candidates, choose

PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7")
platforms = st.frozensets(st.sampled_from(PLATFORMS))


@st.composite
def hosts(draw: st.DrawFn) -> list[Choice]:
    names = draw(st.lists(st.sampled_from("abcdef"), unique=True))
    return [
        Choice(name, native := draw(platforms), draw(platforms) - native, draw(st.integers(1, 4)),
               draw(st.integers(0, 5)), draw(st.booleans()), draw(platforms))
        for name in names
    ]  # fmt: skip


def host(name: str, native: str = PLATFORMS[0], emulated: str = "", slots: int = 2, running: int = 0) -> Choice:
    return Choice(name, frozenset({native}), frozenset({emulated} - {""}), slots, running)


def test_a_native_host_is_preferred_to_an_idle_one_that_emulates() -> None:
    emulating = host("fast", PLATFORMS[0], PLATFORMS[1])
    native = host("board", PLATFORMS[1], slots=2, running=1)
    assert choose([emulating, native], PLATFORMS[1]) == native


def test_the_least_loaded_of_equals_is_taken_with_regard_to_its_slots() -> None:
    busy, large = host("busy", slots=2, running=1), host("large", slots=8, running=2)
    assert choose([busy, large], PLATFORMS[0]) == large


def test_a_lost_host_is_not_taken_again() -> None:
    assert choose([host("lost"), host("other")], PLATFORMS[0], ["lost"]) == host("other")
    assert candidates([host("lost")], PLATFORMS[0], ["lost"]) == []


@given(hosts(), st.sampled_from(PLATFORMS), st.frozensets(st.sampled_from("abcdef")))
def test_what_is_chosen_can_build_has_room_and_no_better_one_is_free(
    given_hosts: list[Choice], platform: str, lost: frozenset[str]
) -> None:
    chosen = choose(given_hosts, platform, lost)
    possible = [one for one in candidates(given_hosts, platform, lost) if one.running < one.slots]
    if chosen is None:
        assert possible == []
        return
    assert chosen in possible
    assert chosen.able
    assert platform in chosen.native | chosen.emulated | chosen.laid_out
    assert chosen.name not in lost
    if platform not in chosen.native:
        assert not any(platform in one.native for one in possible)
    if platform not in chosen.native | chosen.emulated:
        # Also none that is busy: it may have to run something.
        assert not any(one.able and one.runs(platform) and one.name not in lost for one in given_hosts)
