"""An agent process whose machine's clock is years off, as after a power cut: what it does, what it says, what follows
when the clock is set."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from controller.pki import authority
from edge_agent.runtime.identity import load_identity
from tests.support.agent_links import Surroundings, surroundings, workload
from tests.support.async_waiting import until
from tests.support.broker_observer import acknowledge_all
from tests.support.fake_agent import ROOT, FakeAgent
from tests.support.wrong_clock import YEAR, WrongClock

AHEAD, BEHIND = 12 * YEAR, -50 * YEAR
YEARS_OFF = pytest.mark.parametrize("off", [AHEAD, BEHIND], ids=["ahead", "behind"])


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Surroundings]:
    async with surroundings(tmp_path) as made:
        yield made


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    return WrongClock(tmp_path)


def agent_of(around: Surroundings, clock: WrongClock) -> FakeAgent:
    return FakeAgent(around.state_dir, "--poll-interval", "1", env=clock.env)


def command(clock: WrongClock, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command of an agent, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "edge_agent.main", *words],
        cwd=ROOT, env={**os.environ, **clock.env}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def since(text: str, mark: str) -> str:
    """What a log says after the last of these marks."""
    return text.rpartition(mark)[2]


@YEARS_OFF
async def test_what_is_stored_runs_and_the_order_of_events_holds(
    around: Surroundings, clock: WrongClock, off: int
) -> None:
    around.observer.acknowledger = acknowledge_all
    async with agent_of(around, clock) as agent:
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation))
        await agent.signal(signal.SIGKILL)
        await until(lambda: not around.online())
        fetches, told = len(around.controller.fetches), len(around.observer.entries())

        clock.set(off)
        await agent.start()
        await until(lambda: "state=RUNNING" in since(agent.log(), "agent_started"))
        for whose in ("controller", "broker"):
            said = f"the certificate of the {whose} at "
            await until(lambda: said in since(agent.log(), "agent_started"))  # noqa: B023 - over before the next
        assert "by this device's clock, which says" in agent.log()
        assert (len(around.controller.fetches), around.online()) == (fetches, False), "nothing is trusted"

        clock.set(0)
        await until(lambda: around.online() and len(around.observer.entries()) > told, seconds=60)
        generation = around.wish(workload(), workload("deployment-2"))
        await until(lambda: around.runs_ready(generation))

        # The next life counts on from numbers that a clock years ahead gave.
        await agent.signal(signal.SIGKILL)
        await agent.start()
        generation = around.wish(workload(), workload("deployment-3"))
        await until(lambda: around.runs_ready(generation))
        assert_in_order(around)


def assert_in_order(around: Surroundings) -> None:
    numbers = [entry.number for entry in around.observer.entries()]
    assert list(dict.fromkeys(numbers)) == list(range(1, max(numbers) + 1)), "no gap, and none before its time"
    snapshots = [snapshot.sequence for snapshot in around.observer.snapshots()]
    sessions = [presence.session for presence in around.observer.presences()]
    for grows in (snapshots, sessions):
        assert all(one <= other for one, other in itertools.pairwise(grows))


@YEARS_OFF
async def test_certificate_is_renewed_once_the_clock_is_set(around: Surroundings, clock: WrongClock, off: int) -> None:
    before = around.identity.certificate_file.read_bytes()
    around.controller.renewals_due.add(around.device_id)
    clock.set(off)
    async with agent_of(around, clock) as agent:
        await until(lambda: "the certificate of the controller at " in agent.log())
        assert load_identity(around.state_dir).certificate_file.read_bytes() == before
        clock.set(0)
        await until(lambda: "certificate_renewed" in agent.log(), seconds=60)
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation), seconds=60)
    assert load_identity(around.state_dir).certificate_file.read_bytes() != before


async def test_clock_by_which_the_device_would_have_ended_changes_nothing_while_servers_have_not(
    around: Surroundings, clock: WrongClock
) -> None:
    clock.set(2 * YEAR)
    async with agent_of(around, clock) as agent:
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation))
        assert "certificate_renewed" not in agent.log(), "its own clock has no part in that"
        around.controller.renewals_due.add(around.device_id)
        around.wish(workload(), workload("deployment-2"))
        await until(lambda: "certificate_renewed" in agent.log(), seconds=30)
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation), seconds=30)


async def test_enrolling_by_a_clock_that_is_years_off_says_so(around: Surroundings, clock: WrongClock) -> None:
    clock.set(AHEAD)
    token, other = around.controller.token("another"), around.state_dir / "other"
    done = await asyncio.to_thread(command, clock, "enroll", token, "--state-dir", str(other))
    assert done.returncode == 1
    assert "the certificate of the controller at" in done.stderr
    assert "has ended; set the clock" in done.stderr


def doctors_words(around: Surroundings, clock: WrongClock) -> dict[str, str]:
    """What the doctor finds wrong, and what to do."""
    done = command(clock, "doctor", "--json", "--state-dir", str(around.state_dir))
    return {found["what"]: found["mend"] for found in json.loads(done.stdout) if found["level"] == "problem"}


@YEARS_OFF
def test_doctor_says_that_the_clock_is_wrong_and_not_the_certificates(
    around: Surroundings, clock: WrongClock, off: int
) -> None:
    clock.set(off)
    found = doctors_words(around, clock)
    for whose in ("controller", "broker"):
        (mend,) = (mend for what, mend in found.items() if f"certificate of the {whose}" in what)
        assert mend == "set the clock"
    assert sum("so this clock is wrong" in what for what in found) == 2
    assert all("set the clock" in mend for what, mend in found.items() if "its certificate" in what)


async def test_doctor_leaves_open_which_is_wrong_where_only_a_servers_certificate_has_ended(
    tmp_path: Path, clock: WrongClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "SERVER_LIFETIME", timedelta(days=1))
    async with surroundings(tmp_path) as around:
        clock.set(2 * 86400)
        found = doctors_words(around, clock)
    (what,) = (what for what in found if "certificate of the controller" in what)
    assert "this clock is wrong" not in what
    assert found[what] == "set the clock, or renew the certificate of the controller where the clock is right"
