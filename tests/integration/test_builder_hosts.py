"""Builds on another machine, over ssh and over TLS, with real Podman on both sides and a real registry."""

import asyncio
import hashlib
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from controller.builds.hosts import BuilderHost, BuilderPool
from controller.builds.machine import HostLost
from controller.builds.model import BuildResult, OnLine, OnState, TargetJob
from controller.builds.own_place import OwnPlace
from controller.builds.remote import RemotePlace
from controller.builds.targets import load_profiles
from controller.builds.tunnels import SshTunnel, TlsTunnel
from controller.local.process import free_port
from controller.local.stack import LocalStack
from controller.settings import BuilderHost as HostSettings
from controller.settings import Builds
from longshore.client import Client, project
from tests.support.async_waiting import until
from tests.support.builder_hosts import HostUnderTest, running_host, trust_registry
from tests.support.building import BASE_CACHE, SMALL_BASE, Workshop, open_workshop
from tests.support.device_network import DeviceNetwork

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("builder-hosts")]

WAITING = "the step is running"
# Runs until it is ended.
WAITS = f"echo {WAITING}; while :; do sleep 0.1; done"

# A controller of its own process, as far as building there goes. It says what the build says.
CONTROLLER = """
import asyncio, sys
from pathlib import Path
from controller.builds.model import RegistryAccess, TargetJob
from controller.builds.remote import RemotePlace
from controller.builds.tunnels import SshTunnel
from controller.builds.uploads import UploadStore
from controller.spec.model import BuildSpec
from tests.support.building import builder_in

folder, url, key, known_hosts, address, ca_file, user, password, base, step = sys.argv[1:]
access = RegistryAccess(address, Path(ca_file), lambda: (user, password))
job = TargetJob(
    "killed", "alice", "vision", "digits", "x86-cpu",
    BuildSpec.model_validate({"base": base, "steps": [step]}), f"{address}/alice/digits",
)
builder = builder_in(Path(folder) / "builder", access, UploadStore(Path(folder) / "uploads"))
tunnel, journal = SshTunnel(url, Path(key), Path(known_hosts)), Path(folder) / "journal"
place = RemotePlace(url, tunnel, (), builder.podman, journal, builder.operators_base)

async def main():
    async with place.open() as machine:
        await builder.build(job, lambda _, text: print(text, flush=True), lambda _: None, machine)

asyncio.run(main())
"""


class NoBundles:
    """No bundle is asked for here."""

    async def recover(self) -> None: ...

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        raise NotImplementedError


async def asked(pool: BuilderPool) -> BuilderPool:
    """Afterwards all hosts were asked once."""
    await pool.recover()
    for host in pool.hosts:
        await pool.probe(host)
    return pool


@dataclass
class Yard:
    """A workshop and a builder host that its builds go to."""

    workshop: Workshop
    host: HostUnderTest

    def place(self, tunnel: SshTunnel | TlsTunnel) -> RemotePlace:
        builder, journal = self.workshop.builder, self.workshop.folder / "journal"
        return RemotePlace(tunnel.url, tunnel, (), builder.podman, journal, builder.operators_base)

    async def pool(self, tunnel: SshTunnel | TlsTunnel, *, with_own: bool = False) -> BuilderPool:
        hosts = [BuilderHost("far", self.place(tunnel), 2)]
        if with_own:
            hosts.append(BuilderHost("local", OwnPlace(self.workshop.builder), 2))
        pool = BuilderPool(self.workshop.builder, hosts, load_profiles(), NoBundles())
        return await asked(pool)

    async def build(self, pool: BuilderPool, job: TargetJob) -> BuildResult:
        return await pool.build(job, lambda *line: self.workshop.lines.append(line), self.workshop.states.append)

    def job(self, build_id: str, *steps: str) -> TargetJob:
        return self.workshop.job(build_id, {"base": SMALL_BASE, "steps": list(steps)})

    async def step_runs(self) -> None:
        await until(lambda: WAITING in self.workshop.output(), seconds=120)

    async def nothing_is_left(self) -> None:
        assert await self.host.leftovers() == []
        assert self.workshop.leftovers() == []
        assert list((self.workshop.folder / "journal").glob("*.json")) == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_yard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    gateway = DeviceNetwork.of_this_process().gateway
    async with (
        running_host(tmp_path_factory.mktemp("host") / "one") as host,
        open_workshop(tmp_path_factory.mktemp("hosts"), gateway) as workshop,
    ):
        trust_registry(host, workshop.registry.address, workshop.registry.ca_file)
        yield Yard(workshop, host)


@pytest.fixture
def yard(module_yard: Yard) -> Yard:
    module_yard.workshop.lines.clear()
    module_yard.workshop.states.clear()
    return module_yard


async def test_a_host_over_ssh_builds_and_pushes_what_this_machine_would(yard: Yard) -> None:
    far = await yard.build(await yard.pool(yard.host.ssh()), yard.job("ssh", "echo made > /made"))
    assert far.host == "far"
    assert far.artifact is not None
    assert "localhost/longshore/build/x86-cpu:ssh" in await yard.host.podman(
        "images", "--format", "{{.Repository}}:{{.Tag}}"
    )
    assert not any("through the controller" in line for line in yard.workshop.output())
    near = await yard.workshop.build(yard.job("near", "echo made > /made"))
    assert near.digest == far.artifact.digest
    await yard.nothing_is_left()


async def test_a_host_over_tls_keeps_no_secrets_and_its_image_travels_where_it_cannot_reach_the_registry(
    yard: Yard,
) -> None:
    job = yard.job("tls", "sha256sum /run/secrets/token")
    job = replace(job, spec=job.spec.model_copy(update={"secrets": ["token"]}), secrets={"token": b"s3cret-of-tls"})
    with registry_unknown_to(yard.host):
        far = await yard.build(await yard.pool(yard.host.tls()), job)
    digest = hashlib.sha256(b"s3cret-of-tls").hexdigest()
    assert any(digest in line for line in yard.workshop.output())
    assert await yard.host.device.run("sh", "-c", "grep -rls s3cret-of-tls /var/lib/containers /run || true") == ""
    assert any("through the controller" in line for line in yard.workshop.output())
    assert far.artifact is not None
    near = await yard.workshop.build(replace(job, build_id="tls-near"))
    assert near.digest == far.artifact.digest
    await yard.nothing_is_left()


@contextmanager
def registry_unknown_to(host: HostUnderTest) -> Iterator[None]:
    """The host does not trust the registry meanwhile."""
    certificates = host.device.folder / "etc" / "certs.d"
    certificates.rename(certificates.with_name("kept"))
    try:
        yield
    finally:
        certificates.with_name("kept").rename(certificates)


async def test_a_host_lets_no_stranger_in_over_tls(yard: Yard) -> None:
    with pytest.raises(HostLost, match="tls://"):
        await yard.place(yard.host.tls("stranger")).probe()


async def test_a_host_with_another_key_than_the_known_one_is_refused(yard: Yard, tmp_path: Path) -> None:
    other = (yard.host.folder / "known-hosts").read_text().split()
    other[2] = (yard.host.folder / "key.pub").read_text().split()[1]
    (tmp_path / "known").write_text(" ".join(other) + "\n")
    with pytest.raises(HostLost, match="Host key verification failed"):
        await yard.place(replace(yard.host.ssh(), known_hosts=tmp_path / "known")).probe()
    assert yard.workshop.leftovers() == []


@pytest.mark.parametrize("way", ["ssh", "tls"])
async def test_a_cancel_in_a_step_leaves_nothing_on_the_host(yard: Yard, way: str) -> None:
    pool = await yard.pool(yard.host.ssh() if way == "ssh" else yard.host.tls())
    building = asyncio.create_task(yard.build(pool, yard.job(f"cancel-{way}", "true", WAITS)))
    await yard.step_runs()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    await yard.nothing_is_left()
    images = await yard.host.podman("images", "-a", "--format", "{{.Repository}}:{{.Tag}}")
    assert f"cancel-{way}" not in images


async def test_no_program_of_a_base_is_run_with_rights_on_the_host(yard: Yard) -> None:
    # Its shell does, besides what a shell does, what it could do to the machine if it were let.
    shell = '#!/bin/bash\\n{ echo ran > /proc/1/root/run/ran-by-base; } 2>/dev/null\\nexec /bin/bash "$@"\\n'
    made = await yard.workshop.build(
        yard.job("hostile", f"printf '{shell}' > /shell; chmod 755 /shell; mv /shell /usr/bin/sh")
    )
    base = f"{made.repository}@{made.digest}"
    pool = await yard.pool(yard.host.ssh())
    job = yard.workshop.job("on-hostile", {"base": base, "steps": [WAITS]})
    building = asyncio.create_task(yard.build(pool, job))
    await yard.step_runs()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    await yard.nothing_is_left()
    assert await yard.host.device.run("sh", "-c", "ls /run") != ""
    assert "ran-by-base" not in await yard.host.device.run("ls", "/run")


async def test_a_host_that_disappears_in_a_build_is_replaced_and_cleaned_when_it_is_back(yard: Yard) -> None:
    pool = await yard.pool(yard.host.ssh(), with_own=True)
    far = pool.hosts[0]
    gateway, port = yard.host.device.gateway, free_port(yard.host.device.gateway)
    wait = f"until (echo > /dev/tcp/{gateway}/{port}) 2>/dev/null; do sleep 0.1; done"
    job = yard.job("lost", f"echo {WAITING}; bash -c '{wait}'")
    building = asyncio.create_task(yard.build(pool, job))
    await yard.step_runs()
    await yard.host.device.power_cut()
    async with await asyncio.start_server(lambda _, writer: writer.close(), gateway, port):
        built = await building
    assert built.host == "local"
    assert built.artifact is not None
    assert any("builder host far is lost" in line for line in yard.workshop.output())
    assert far.condition != ""
    await yard.host.device.boot()
    await yard.host.start()
    await pool.probe(far)
    assert far.condition == "", yard.host.log()
    # No copy of the context, and no secret beside it; the service's bundles of steps are the machine's to remove.
    assert [name for name in await yard.host.leftovers() if not re.fullmatch(r"buildah\d+", name)] == []
    yard.host.empty_temporary()
    await yard.nothing_is_left()


async def test_images_on_a_host_are_removed_when_they_are_old(yard: Yard) -> None:
    place = yard.place(yard.host.ssh())
    pool = BuilderPool(yard.workshop.builder, [BuilderHost("far", place, 2)], load_profiles(), NoBundles())
    await asked(pool)
    await yard.build(pool, yard.job("old", "echo old > /made"))
    await pool.probe(pool.hosts[0])
    assert ":old" in await yard.host.podman("images", "--format", "{{.Tag}}:{{.Tag}}")
    for note in (yard.workshop.folder / "journal" / "images").iterdir():
        os.utime(note, (0, 0))
    await pool.probe(pool.hosts[0])
    assert ":old" not in await yard.host.podman("images", "--format", "{{.Tag}}:{{.Tag}}")


async def test_what_a_killed_controller_left_on_a_host_is_ended_and_removed(yard: Yard) -> None:
    await kill_a_controller_in_a_step(yard)
    assert await yard.host.leftovers() != []
    pool = await yard.pool(yard.host.ssh())
    assert pool.hosts[0].condition == ""
    await yard.nothing_is_left()


async def kill_a_controller_in_a_step(yard: Yard) -> None:
    registry, tunnel = yard.workshop.registry, yard.host.ssh()
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", CONTROLLER, str(yard.workshop.folder), tunnel.url, str(tunnel.key),
          str(tunnel.known_hosts), registry.address, str(registry.ca_file), *registry.push_credentials(),
          SMALL_BASE, WAITS], stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(120):
        while WAITING not in (line := (await process.stdout.readline()).decode()).splitlines():
            assert line, "the controller ended by itself"
    process.kill()
    await process.wait()
    # Processes that it started have the other end of the pipe.
    process._transport.close()  # type: ignore[attr-defined]


async def test_a_controller_builds_on_the_host_that_its_settings_name(yard: Yard, tmp_path: Path) -> None:
    tunnel = yard.host.ssh()
    far = HostSettings(name="far", url=tunnel.url, ssh_key=tunnel.key, known_hosts=tunnel.known_hosts, slots=3)
    builds = Builds(base_cache=BASE_CACHE, local=False, hosts=(far,))
    deploy = {"network": {"ports": [{"name": "http", "container": 8080}]}}
    spec = {"version": 1, "name": "digits", "build": {"base": SMALL_BASE}, "deploy": deploy}
    (tmp_path / "deployment.yml").write_text(yaml.safe_dump({**spec, "targets": [{"profile": "x86-cpu"}]}))
    async with LocalStack(tmp_path / "stack", host=yard.host.device.gateway, builds=builds) as stack:
        trust_registry(yard.host, stack.registry.address, stack.ca_file)
        context = yaml.safe_load(stack.context_file.read_text())
        with Client(context["address"], context["token"], context["ca"]) as client:
            built = await asyncio.to_thread(client.build, tmp_path / "deployment.yml", project("alice", "vision"))
            ended = await asyncio.to_thread(client.wait_for_build, built.id, timeout=240)
            assert ended.targets[0].artifact.digest, ended
            assert ended.targets[0].host == "far"
            (host,) = await asyncio.to_thread(client.list_builder_hosts)
    assert (host.name, host.address, host.slots, host.condition) == ("far", tunnel.url, 3, "")
    assert list(host.native_platforms) == ["linux/amd64"]
    assert await yard.host.leftovers() == []
