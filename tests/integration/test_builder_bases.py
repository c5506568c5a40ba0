"""Where bases come from when their registry does not answer."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.builds import registry_session
from controller.builds.base_uses import BaseUses
from controller.builds.bases import BaseResolver
from controller.builds.bootstrap import Bootstrapper, Recipe
from controller.builds.model import BuildFailed, RegistryAccess
from controller.builds.podman import Podman
from controller.builds.recovery import close, recover
from controller.builds.targets import load_profiles
from controller.spec.image_names import full_name
from tests.support.building import BASE_CACHE, mounts_below, processes_of
from tests.support.waiting import eventually
from tests.unit.test_image_names import IMPOSSIBLE, VALID

pytestmark = [pytest.mark.podman, pytest.mark.xdist_group("builder")]

PROFILE = load_profiles()["x86-cpu"]
NOBODY = RegistryAccess("127.0.0.1:9", None, lambda: ("", ""))


class Deaf:
    """A server that hangs up on everyone; `calls` counts them."""

    def __init__(self) -> None:
        self.calls = 0
        self.address = ""

    def hang_up(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        writer.close()


@pytest.fixture
async def deaf(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Deaf]:
    """Stands where docker.io should be."""
    server = Deaf()
    listening = await asyncio.start_server(server.hang_up, "127.0.0.1", 0)
    server.address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    monkeypatch.setitem(registry_session.API_HOSTS, "docker.io", server.address)
    yield server
    listening.close()
    await listening.wait_closed()


@pytest.fixture
async def podman(tmp_path: Path) -> AsyncIterator[Podman]:
    storage = Podman(tmp_path / "builder")
    storage.prepare()
    await recover(storage)
    yield storage
    close(storage)
    assert mounts_below(tmp_path) == []


async def test_a_known_base_is_made_from_packages_and_has_no_trace_of_this_machine(podman: Podman, deaf: Deaf) -> None:
    resolver = BaseResolver(podman, Bootstrapper(podman, BASE_CACHE), NOBODY, connect_timeout=5)
    lines: list[str] = []
    found = await resolver.resolve("python:3.11-slim", PROFILE, podman.temporary, lambda _, text: lines.append(text))
    assert found.name == "docker.io/library/python:3.11-slim"
    assert any("in place of docker.io/library/python:3.11-slim" in line for line in lines)
    script = "apt-get --version && python3 -m venv /v && /v/bin/pip --version && cat /etc/os-release && ls /etc/apt/*"
    options = ("--rm", "--network", "host", "--pids-limit", "0", "--no-hosts")
    ran = await podman.run("run", *options, found.image_id, "sh", "-ec", script)
    assert ran.returncode == 0, ran.stderr
    assert "bookworm" in ran.stdout
    assert "/etc/apt/sources.list" in ran.stdout
    # Housekeeping removes what was not used for long.
    os.utime(podman.folder / "used" / found.image_id, (0, 0))
    assert await resolver.resolve("python:3.11-slim", PROFILE, podman.temporary, lambda *_: None) == found
    assert BaseUses(podman.folder).last(found.image_id) > 0
    assert [path.name for path in (podman.folder / "used").iterdir()] == [found.image_id]


async def test_an_unreachable_registry_is_not_asked_by_every_build(podman: Podman, deaf: Deaf) -> None:
    now = 100.0
    bootstrapper = Bootstrapper(podman, BASE_CACHE)
    resolver = BaseResolver(podman, bootstrapper, NOBODY, connect_timeout=5, memory=60.0, clock=lambda: now)

    async def fail() -> BuildFailed:
        with pytest.raises(BuildFailed) as caught:
            await resolver.resolve("someone/own:1", PROFILE, podman.temporary, lambda *_: None)
        return caught.value

    assert (await fail()).reason == "BaseUnreachable"
    asked = deaf.calls
    assert asked > 0
    now += 59
    assert (await fail()).retryable
    assert deaf.calls == asked
    now += 2
    await fail()
    assert deaf.calls > asked


async def test_podman_reads_the_names_that_a_spec_may_say_and_no_impossible_one(podman: Podman) -> None:
    taken: list[str] = []
    refused: list[str] = []
    for name in (*VALID, *IMPOSSIBLE):
        status = (await podman.run("image", "exists", full_name(name))).returncode
        # 1: there is none; 125: there can be none.
        {1: taken, 125: refused}[status].append(name)
    assert (tuple(taken), tuple(refused)) == (VALID, IMPOSSIBLE)


@pytest.mark.slow
async def test_builds_that_need_a_base_at_once_make_it_once_and_a_cancel_leaves_nothing(
    podman: Podman, tmp_path: Path
) -> None:
    recipe = Recipe(name="small", stands_for=(), suite="bookworm", include=())
    cache = tmp_path / "cache"
    lines: list[str] = []
    first = asyncio.create_task(
        Bootstrapper(podman, cache).image_id(recipe, "amd64", lambda _, text: lines.append(text))
    )
    await asyncio.to_thread(eventually, lambda: any(cache.glob("*.part/apt/var/lib/apt/lists/*")), seconds=60)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert processes_of(podman.folder) == []
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == []
    lines.clear()
    makers = [Bootstrapper(podman, cache) for _ in range(2)]
    ids = await asyncio.gather(
        *(maker.image_id(recipe, "amd64", lambda _, text: lines.append(text)) for maker in makers)
    )
    assert ids[0] == ids[1]
    assert sum("making small" in line for line in lines) == 1


async def test_registries_that_did_not_answer_long_ago_are_forgotten(podman: Podman) -> None:
    now = 100.0
    bootstrapper = Bootstrapper(podman, BASE_CACHE)
    resolver = BaseResolver(podman, bootstrapper, NOBODY, connect_timeout=5, memory=60.0, clock=lambda: now)
    for number in range(1, 6):
        with pytest.raises(BuildFailed, match=r"BaseUnreachable|cannot pull"):
            await resolver.resolve(f"127.0.0.{number}:1/own:1", PROFILE, podman.temporary, lambda *_: None)
        now += 25
    assert set(resolver._unreachable) == {f"127.0.0.{number}:1" for number in (3, 4, 5)}
