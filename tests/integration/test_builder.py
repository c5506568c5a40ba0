"""Images built by real Podman, pushed to a real registry."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from controller.builds import image_build, registry
from controller.builds.builder import ImageBuilder
from controller.builds.cancelling import STOPPING
from controller.builds.emulation import own_architecture
from controller.builds.log import BuildLog
from controller.builds.machine import OwnMachine
from controller.builds.model import BuildFailed, BuildState, RegistryAccess, TargetJob
from controller.builds.podman import Podman
from controller.builds.settings import BuilderSettings
from tests.support.building import BASE_CACHE, Workshop, builder_in, open_workshop, processes_of
from tests.support.debs import archive_of, flat_repository, make_package
from tests.support.package_index import HIDDEN, PACKAGE, PASSWORD, PackageIndex, running_index
from tests.support.password_proxy import PASSWORD as PROXY_PASSWORD
from tests.support.password_proxy import PasswordProxy, password_proxy

# One storage for all: the base is imported once. Each test has packages or labels of its own.
pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("builder")]

NO_PROXY = "http://127.0.0.1:9"
NASTY = "a \"b\" 'c' $HOME ${PATH} `id` $(id) \\ # ; && \t | é"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_workshop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path_factory.mktemp("builder")) as workshop:
        await workshop.builder.operators_base(own_architecture())
        yield workshop


@pytest.fixture
def workshop(module_workshop: Workshop) -> Iterator[Workshop]:
    """Every test ends with nothing of its builds running, mounted or half done."""
    module_workshop.lines.clear()
    module_workshop.states.clear()
    yield module_workshop
    assert module_workshop.leftovers() == []


@pytest_asyncio.fixture(loop_scope="module")
async def index(tmp_path: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PackageIndex]:
    """Where Python packages come from in this test, behind a proxy setting that is not for it."""
    async with running_index(tmp_path) as running:
        monkeypatch.setenv("PIP_INDEX_URL", running.url)
        # The index holds its answer back for as long as a test needs, also on a busy machine.
        monkeypatch.setenv("PIP_TIMEOUT", "600")
        monkeypatch.setenv("SSL_CERT_FILE", str(running.ca_file))
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, NO_PROXY)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield running


async def failure_of(workshop: Workshop, job: TargetJob) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        await workshop.build(job)
    return caught.value


async def test_an_image_is_what_the_spec_says(workshop: Workshop) -> None:
    files = [
        await workshop.upload("server.py", b"print('ready')\n"),
        await workshop.upload("model/weights $x.bin", b"\0" * 1000),
        await workshop.upload("run me.sh", b'#!/bin/sh\necho ran "$1" as $(id -u) in $(pwd)\n', executable=True),
    ]
    spec = {"workdir": "/srv/my $app", "environment": {"NASTY": NASTY}}
    entrypoint = ("./run me.sh", NASTY)
    artifact = await workshop.build(workshop.job("what", spec, files, entrypoint=entrypoint, ports=(8000, 9000)))
    assert workshop.states == [BuildState.PREPARING, BuildState.BUILDING, BuildState.PUSHING]
    assert artifact.platform == "linux/amd64"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", artifact.digest)
    assert 20_000_000 < artifact.size_bytes < 200_000_000
    image = "localhost/longshore/build/x86-cpu:what"
    config = workshop.podman_json("inspect", image)[0]["Config"]
    assert f"NASTY={NASTY}" in config["Env"]
    assert (config["WorkingDir"], config["User"]) == ("/srv/my $app", "1000:1000")
    assert config["Entrypoint"] == list(entrypoint)
    assert set(config["ExposedPorts"]) == {"8000/tcp", "9000/tcp"}
    assert config["Labels"]["dev.longshore.project"] == "vision"
    ran = workshop.podman("run", "--rm", "--network", "host", "--pids-limit", "0", image)
    assert ran == f"ran {NASTY} as 1000 in /srv/my $app\n"


async def test_the_same_request_gives_the_same_digest_and_a_change_of_code_only_a_new_last_layer(
    workshop: Workshop,
) -> None:
    first = await workshop.upload("server.py", b"VERSION = 1\n")
    second = await workshop.upload("server.py", b"VERSION = 2\n")
    one = await workshop.build(workshop.job("same1", {}, [first]))
    again = await workshop.build(workshop.job("same2", {}, [first]))
    changed = await workshop.build(workshop.job("same3", {}, [second]))
    assert one.digest == again.digest != changed.digest
    layers = [layers_of(workshop, f"localhost/longshore/build/x86-cpu:same{number}") for number in (1, 3)]
    assert layers[0][:-1] == layers[1][:-1]
    assert layers[0][-1] != layers[1][-1]


def layers_of(workshop: Workshop, image: str) -> list[str]:
    layers: list[str] = workshop.podman_json("inspect", image)[0]["RootFS"]["Layers"]
    return layers


async def test_what_was_pushed_serves_as_base_by_its_registry(workshop: Workshop) -> None:
    below = await workshop.build(workshop.job("below", {"environment": {"FROM_BELOW": "1"}}))
    base = f"{below.repository}:below"
    await workshop.build(workshop.job("above", {"base": base, "environment": {"FROM_ABOVE": "2"}}))
    config = workshop.podman_json("inspect", "localhost/longshore/build/x86-cpu:above")[0]["Config"]
    assert {"FROM_BELOW=1", "FROM_ABOVE=2"} <= set(config["Env"])
    assert any("pulling" in line for line in workshop.output())


async def test_packages_of_both_kinds_are_installed(workshop: Workshop, index: PackageIndex) -> None:
    # The proxy of the index fixture leads nowhere, and apt would use it.
    os.environ.pop("http_proxy")
    packages = {"apt": ["hello"], "pypi": [f"{PACKAGE}>=1"]}
    code = "import longshore_sample, subprocess; subprocess.run(['hello']); print(longshore_sample.ANSWER)"
    await workshop.build(workshop.job("packages", {"packages": packages}, entrypoint=("python3", "-c", code)))
    ran = workshop.podman(
        "run", "--rm", "--network", "host", "--pids-limit", "0", "localhost/longshore/build/x86-cpu:packages"
    )
    assert ran.splitlines() == ["Hello, world!", "42"]


async def test_a_package_is_downloaded_once_for_all_builds_and_its_cache_is_in_no_image(
    workshop: Workshop, index: PackageIndex
) -> None:
    packages = {"pypi": [f"{PACKAGE}==1.0"]}
    await workshop.build(workshop.job("cold", {"packages": packages, "workdir": "/cold"}))
    assert index.asked.is_set()
    index.asked.clear()
    await workshop.build(workshop.job("warm", {"packages": packages, "workdir": "/warm"}))
    assert not index.asked.is_set()
    await workshop.builder.recover()
    await workshop.build(workshop.job("recovered", {"packages": packages, "workdir": "/recovered"}))
    assert not index.asked.is_set()
    list_cache = ("sh", "-c", "ls -A /var/cache/longshore 2>/dev/null || true")
    options = ("--rm", "--network", "host", "--pids-limit", "0", "--entrypoint", list_cache[0])
    assert workshop.podman("run", *options, "localhost/longshore/build/x86-cpu:warm", *list_cache[1:]) == ""


async def test_an_unknown_apt_package_is_named_and_nothing_is_left(workshop: Workshop) -> None:
    await workshop.build(workshop.job("before", {"environment": {"APT": "1"}}))
    images = workshop.images()
    job = workshop.job("noapt", {"packages": {"apt": ["curl", "no-such-package"]}})
    failure = await failure_of(workshop, job)
    assert (failure.reason, failure.retryable) == ("PackageNotFound", False)
    assert "no-such-package" in failure.message
    assert failure.step == "RUN apt-get install (2 packages)"
    assert "E: Unable to locate package no-such-package" in failure.last_lines
    assert len(failure.last_lines) <= 20
    assert workshop.images() == images


async def test_an_unknown_python_package_is_named_and_nothing_is_left(workshop: Workshop, index: PackageIndex) -> None:
    await workshop.build(workshop.job("before", {"environment": {"PYPI": "1"}}))
    images = workshop.images()
    failure = await failure_of(workshop, workshop.job("nopypi", {"packages": {"pypi": ["no-such-package-at-all"]}}))
    assert (failure.reason, failure.retryable) == ("PackageNotFound", False)
    assert "no-such-package-at-all" in failure.message
    assert failure.step == "RUN uv pip install (1 package)"
    assert workshop.images() == images


async def test_versions_that_exclude_each_other_are_a_conflict(workshop: Workshop, index: PackageIndex) -> None:
    packages = {"pypi": [f"{PACKAGE}==1.0", f"{PACKAGE}!=1.0"]}
    failure = await failure_of(workshop, workshop.job("conflict", {"packages": packages}))
    assert failure.reason == "PackageConflict"
    assert failure.last_lines


async def test_a_hosts_index_and_certificates_are_used_and_remain_nowhere(
    workshop: Workshop, index: PackageIndex, tmp_path: Path
) -> None:
    await workshop.build(workshop.job("secrets", {"packages": {"pypi": [PACKAGE]}}))
    assert index.asked.is_set()
    stored = stored_of(workshop, "secrets", tmp_path)
    assert b"longshore_sample" in stored
    certificate = index.ca_file.read_bytes().splitlines()[2]
    for text in (PASSWORD.encode(), f"127.0.0.1:{index.port}".encode(), certificate):
        assert text not in stored
    assert not any(PASSWORD in line for line in workshop.output())


def stored_of(workshop: Workshop, build_id: str, scratch: Path) -> bytes:
    """All that is in the image: layers, configuration, history."""
    image, archive = f"localhost/longshore/build/x86-cpu:{build_id}", scratch / "image.tar"
    workshop.podman("save", "--format", "docker-archive", "-o", str(archive), image)
    return archive.read_bytes() + workshop.podman("history", "--no-trunc", "--format", "json", image).encode()


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> Callable[[PasswordProxy], None]:
    """Makes a proxy that of this machine."""

    def set_up(proxy: PasswordProxy) -> None:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        # Where the registry of these tests is.
        monkeypatch.setenv("no_proxy", "127.0.0.1")

    return set_up


async def test_an_index_behind_the_hosts_proxy_is_reached_and_the_proxy_remains_nowhere(
    workshop: Workshop,
    index: PackageIndex,
    behind: Callable[[PasswordProxy], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index.hidden_url)
    async with password_proxy({HIDDEN: index.port}, {}) as proxy:
        behind(proxy)
        await workshop.build(workshop.job("proxied", {"packages": {"pypi": [PACKAGE]}, "workdir": "/proxied"}))
    assert index.asked.is_set()
    assert f"CONNECT {HIDDEN}:443" in proxy.served
    stored = stored_of(workshop, "proxied", tmp_path)
    assert b"longshore_sample" in stored
    assert traces(proxy, stored, workshop) == []


async def test_a_repository_behind_the_hosts_proxy_is_reached_and_the_proxy_remains_nowhere(
    workshop: Workshop, behind: Callable[[PasswordProxy], None], tmp_path: Path
) -> None:
    make_package(tmp_path, "longshore-sample", {"/opt/sample": "from behind the proxy"}, architecture="all")
    files = flat_repository("http://debs.invalid", archive_of(tmp_path, "longshore-sample"))
    only = "rm -rf /etc/apt/sources.list.d; echo 'deb [trusted=yes] http://debs.invalid/ ./' > /etc/apt/sources.list"
    below = await workshop.build(workshop.job("sources", {"steps": [only]}))
    async with password_proxy({}, files) as proxy:
        behind(proxy)
        spec = {"base": f"{below.repository}:sources", "packages": {"apt": ["longshore-sample"]}}
        await workshop.build(workshop.job("proxied-apt", spec))
    assert "GET http://debs.invalid/./longshore-sample.deb" in proxy.served
    stored = stored_of(workshop, "proxied-apt", tmp_path)
    assert b"from behind the proxy" in stored
    assert traces(proxy, stored, workshop) == []


def traces(proxy: PasswordProxy, stored: bytes, workshop: Workshop) -> list[str]:
    """What the image or the log tells of the proxy."""
    told = (f"127.0.0.1:{proxy.port}", PROXY_PASSWORD)
    return [text for text in told if text.encode() in stored or any(text in line for line in workshop.output())]


async def test_a_cancel_in_a_step_leaves_nothing(workshop: Workshop, index: PackageIndex) -> None:
    images, stored = workshop.images(), workshop.registry.stored()
    index.open.clear()
    building = asyncio.create_task(
        workshop.build(workshop.job("cancel", {"packages": {"pypi": [PACKAGE]}, "workdir": "/c"}))
    )
    await asyncio.wait_for(index.asked.wait(), 60)
    assert processes_of(workshop.builder.podman.folder) != []
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(building, 30)
    assert workshop.leftovers() == []
    assert workshop.images() == images
    assert workshop.registry.stored() == stored


class Pushed(OwnMachine):
    """Pushes, and never comes to say so."""

    def __init__(self, podman: Podman, there: asyncio.Event) -> None:
        super().__init__(podman)
        self._there = there

    async def push(self, image: str, target: str, folder: Path, access: RegistryAccess, log: BuildLog) -> str:
        digest = await super().push(image, target, folder, access, log)
        self._there.set()
        await asyncio.Event().wait()
        return digest


@pytest.mark.parametrize("moment", ["PREPARING", "BUILDING", "PUSHING", "pushed"])
async def test_a_cancel_at_any_moment_leaves_nothing(workshop: Workshop, moment: str) -> None:
    there = asyncio.Event()
    told: list[tuple[str, str, str, str]] = []
    builder = telling_builder(workshop, told)
    machine = Pushed(builder.podman, there) if moment == "pushed" else None

    def watch(current: BuildState) -> None:
        if current == moment:
            there.set()

    images, stored = workshop.images(), workshop.registry.stored()
    job = workshop.job(f"at-{moment.lower()}", {"workdir": f"/{moment.lower()}"})
    building = asyncio.create_task(builder.build(job, lambda *_: None, watch, machine))
    await asyncio.wait_for(there.wait(), 60)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(building, 30)
    assert workshop.leftovers() == []
    assert workshop.images() == images
    if moment == "pushed":
        assert workshop.registry.stored() > stored
        # So that housekeeping removes it.
        assert told == [(job.user_id, job.project_id, job.repository, job.build_id)]
        assert await registry.has_manifest(job.repository, job.build_id, access_of(workshop))
    else:
        assert workshop.registry.stored() == stored


async def test_a_controller_that_stops_while_an_image_is_pushed_finds_its_layers_again(workshop: Workshop) -> None:
    there, told, lines = asyncio.Event(), list[tuple[str, str, str, str]](), list[str]()
    builder = telling_builder(workshop, told)
    job = workshop.job("stopped", {"workdir": "/stopped", "steps": ["date > /made"]})
    building = asyncio.create_task(builder.build(job, lambda *_: None, lambda _: None, Pushed(builder.podman, there)))
    await asyncio.wait_for(there.wait(), 60)
    building.cancel(STOPPING)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(building, 30)
    await builder.build(job, lambda _, text: lines.append(text), lambda _: None)
    (step,) = [number for number, text in enumerate(lines) if text.endswith("RUN date > /made")]
    assert "Using cache" in lines[step + 1]
    assert workshop.leftovers() == []


async def test_what_an_earlier_try_has_pushed_is_told_before_its_name_is_taken_away(workshop: Workshop) -> None:
    told: list[tuple[str, str, str, str]] = []
    builder = telling_builder(workshop, told)
    await workshop.build(workshop.job("again", {"workdir": "/earlier"}))
    earlier = await registry.get_manifest(f"{workshop.registry.address}/alice/digits", "again", access_of(workshop))
    assert earlier is not None
    job = workshop.job("again", {"workdir": "/later"}, again=True)
    result = await builder.build(job, lambda *_: None, lambda _: None)
    assert result.artifact is not None
    assert [reference for *_, reference in told] == ["again", earlier.digest, result.artifact.digest]


def access_of(workshop: Workshop) -> RegistryAccess:
    server = workshop.registry
    return RegistryAccess(server.address, server.ca_file, server.push_credentials)


def telling_builder(workshop: Workshop, told: list[tuple[str, str, str, str]]) -> ImageBuilder:
    """One more in the workshop's folder, which says what it pushes."""
    settings, folder = BuilderSettings(base_cache=BASE_CACHE), workshop.builder.podman.folder
    return ImageBuilder(
        folder, workshop.uploads, access_of(workshop), settings, on_pushed=lambda *what: told.append(what)
    )


async def test_a_cancel_does_not_touch_another_build(workshop: Workshop, index: PackageIndex) -> None:
    index.open.clear()
    jobs = [
        workshop.job(f"pair{number}", {"packages": {"pypi": [PACKAGE]}, "workdir": f"/p{number}"}) for number in (1, 2)
    ]
    cancelled, other = (asyncio.create_task(workshop.build(job)) for job in jobs)
    await asyncio.wait_for(index.asked.wait(), 60)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(cancelled, 30)
    index.open.set()
    assert (await asyncio.wait_for(other, 120)).digest.startswith("sha256:")


async def test_steps_reach_what_listens_on_loopback_only_in_the_network_of_the_machine(workshop: Workshop) -> None:
    """The image is the same."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    knock = f"bash -c '(echo > /dev/tcp/127.0.0.1/{port}) 2>/dev/null' && echo heard || echo unheard"
    job = workshop.job("network", {"steps": [knock]}, no_cache=True)
    access = RegistryAccess(workshop.registry.address, workshop.registry.ca_file, workshop.registry.push_credentials)
    digests = set()
    async with server:
        for network, answer in (("host", "heard"), ("private", "unheard")):
            workshop.lines.clear()
            workshop.builder = builder_in(workshop.builder.podman.folder, access, workshop.uploads, network=network)
            digests.add((await workshop.build(job)).digest)
            assert [line for line in workshop.output() if line in ("heard", "unheard")] == [answer]
    assert len(digests) == 1


async def test_a_registry_that_is_down_is_worth_another_try_and_a_refusal_is_not(
    workshop: Workshop, tmp_path: Path
) -> None:
    settings = BuilderSettings(base_cache=BASE_CACHE)
    job = workshop.job("nopush", {"environment": {"PUSH": "1"}})
    access = RegistryAccess(workshop.registry.address, workshop.registry.ca_file, lambda: ("controller", "wrong"))
    failure = await failure_with(ImageBuilder(workshop.builder.podman.folder, workshop.uploads, access, settings), job)
    assert (failure.reason, failure.retryable) == ("RegistryRefused", False)
    nowhere = RegistryAccess("127.0.0.1:9", workshop.registry.ca_file, lambda: ("a", "b"))
    builder = ImageBuilder(workshop.builder.podman.folder, workshop.uploads, nowhere, settings)
    failure = await failure_with(builder, workshop.job("nopush", {}, repository="127.0.0.1:9/alice/digits"))
    assert (failure.reason, failure.retryable) == ("RegistryUnreachable", True)


async def test_what_was_pushed_is_told_although_the_build_fails_then(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise BuildFailed("RegistryUnreachable", "the registry is away")

    monkeypatch.setattr(image_build, "attach", broken)
    told: list[tuple[str, str, str, str]] = []
    job = workshop.job("told", {}, tag="told.x86-cpu")
    await failure_with(telling_builder(workshop, told), job)
    assert {(user, project, repository) for user, project, repository, _ in told} == {
        (job.user_id, job.project_id, job.repository)
    }
    begun, digest = [reference for *_, reference in told]
    assert begun == "told.x86-cpu"
    pushed = await registry.get_manifest(job.repository, begun, access_of(workshop))
    assert pushed is not None
    assert pushed.digest == digest


async def failure_with(builder: ImageBuilder, job: TargetJob) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        await builder.build(job, lambda *_: None, lambda *_: None)
    return caught.value


async def test_a_base_that_its_registry_lacks_is_final_and_an_unreachable_one_is_not(workshop: Workshop) -> None:
    lacking = f"{workshop.registry.address}/alice/nothing:1"
    failure = await failure_of(workshop, workshop.job("lacking", {"base": lacking}))
    assert (failure.reason, failure.retryable) == ("BaseNotFound", False)
    assert lacking in failure.message
    failure = await failure_of(workshop, workshop.job("unreachable", {"base": "127.0.0.1:9/a/b:1"}))
    assert (failure.reason, failure.retryable) == ("BaseUnreachable", True)


async def test_a_file_name_that_no_disk_takes_is_said_so(workshop: Workshop) -> None:
    file = await workshop.upload("x" * 300, b"long")
    failure = await failure_of(workshop, workshop.job("longname", {}, [file]))
    assert (failure.reason, failure.retryable) == ("BadPath", False)


async def test_an_upload_that_is_not_there_fails_the_build(workshop: Workshop) -> None:
    file = await workshop.upload("server.py", b"gone")
    workshop.uploads.path(file.digest).unlink()
    failure = await failure_of(workshop, workshop.job("missing", {}, [file]))
    assert failure.reason == "UploadMissing"
    assert "server.py" in failure.message
