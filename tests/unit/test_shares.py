"""Shares of the processor: which cores a workload sees, and how many threads it starts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runtime.model import Resources
from edge_agent.runtime.shares import chosen_cores, cores, thread_variables, whole_cores


def test_a_list_of_cores_is_read_as_the_kernel_reads_it() -> None:
    assert cores("0-2,5") == [0, 1, 2, 5]
    with pytest.raises(ValueError, match="invalid literal"):
        cores("x")


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        (Resources(), 0),
        (Resources(cpu_millis=100), 1),
        (Resources(cpu_millis=1001), 2),
        (Resources(cpu_set="0-3"), 4),
        (Resources(cpu_millis=1500, cpu_set="0-3"), 2),
    ],
)
def test_a_share_is_told_in_whole_cores(resources: Resources, count: int) -> None:
    assert whole_cores(resources) == count
    assert set(thread_variables(resources, ()).values()) == ({str(count)} if count else set())


def test_the_least_used_cores_are_chosen() -> None:
    share = Resources(cpu_millis=2000)
    assert chosen_cores(share, [], range(4)) == "0,1"
    assert chosen_cores(share, ["0,1"], range(4)) == "2,3"
    assert chosen_cores(share, ["0,1", "", "2"], range(4)) == "0,3"


@given(st.integers(1, 16_000), st.integers(1, 16), st.lists(st.integers(0, 15).map(str), max_size=20))
def test_a_choice_has_as_many_cores_as_the_share_needs_or_is_all_of_them(
    millis: int, present: int, taken: list[str]
) -> None:
    resources = Resources(cpu_millis=millis)
    choice = chosen_cores(resources, taken, range(present))
    chosen = cores(choice) if choice else list(range(present))
    assert set(chosen) <= set(range(present))
    assert len(chosen) == min(whole_cores(resources), present)


def test_cores_that_a_spec_names_are_kept() -> None:
    assert chosen_cores(Resources(cpu_millis=500, cpu_set="3"), ["3"], range(4)) == "3"
