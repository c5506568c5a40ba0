"""Bundles on devices of every kind: fresh ones, with accelerators, without a sandbox."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from edge_agent.runtime.backend import BackendError, Unsupported
from edge_agent.runtime.model import Artifact, Mount, Resources, Secret, Volume, Workload
from tests.contract.machine import await_lines, await_observed, has_ended, ignore, inside, launch
from tests.support.async_waiting import until_holds
from tests.support.virtualenv_machine import VirtualenvMachine, VirtualenvSite, virtualenv_site

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("virtualenv-hosts"),
    pytest.mark.asyncio(loop_scope="module"),
]
POLITE = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VirtualenvSite]:
    async with virtualenv_site(tmp_path_factory.mktemp("site"), {}) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def artifact(site: VirtualenvSite) -> Artifact:
    return await site.bundle({"main.py": b"print('here')\n"})


@pytest_asyncio.fixture(loop_scope="module")
async def machine(site: VirtualenvSite) -> AsyncIterator[VirtualenvMachine]:
    async with VirtualenvMachine(site, f"owner-{next(site.numbers)}") as made:
        yield made


async def test_device_with_an_empty_opt_runs_bundles(machine: VirtualenvMachine, artifact: Artifact) -> None:
    device = machine.site.device
    await device.run("mount", "-t", "tmpfs", "none", "/opt")
    try:
        handle = await launch(machine, machine.site.workload(artifact, f"ls /opt; python main.py; {POLITE}"))
        *found, said = await await_lines(machine.backend, handle, 3)
        assert (found, said) == (["longshore", "venv"], "here")
    finally:
        await device.run("umount", "--lazy", "/opt")


# Any device node does for an accelerator: what is in it is the vendor's matter.
EDITS = {
    "env": ["LAMP=on"],
    "deviceNodes": [{"path": "/dev/lamp", "hostPath": "/run/lamp/node"}],
    "mounts": [{"hostPath": "/run/lamp/library", "containerPath": "/opt/lamp/library", "options": ["ro", "bind"]}],
    "additionalGids": [4322],
}
LAMP = {"cdiVersion": "0.7.0", "kind": "example.com/lamp", "devices": [{"name": "all", "containerEdits": EDITS}]}
PLUG_IN = """
mkdir -p /run/lamp /run/cdi
mknod /run/lamp/node c 1 5
chgrp 4321 /run/lamp/node
chmod 660 /run/lamp/node
echo bright > /run/lamp/library
echo '{' > /run/cdi/broken.json
printf '%s' "$0" > /run/cdi/lamp.json
"""


@asynccontextmanager
async def plugged_in(machine: VirtualenvMachine, document: Any = LAMP) -> AsyncIterator[None]:
    """Within the block the device has the accelerator."""
    device = machine.site.device
    await device.run("sh", "-ec", PLUG_IN, json.dumps(document))
    try:
        yield
    finally:
        await device.run("rm", "-rf", "/run/lamp", "/run/cdi")


async def refusal(machine: VirtualenvMachine, workload: Workload) -> BackendError:
    """Of its start, of which nothing is left."""
    await machine.backend.prepare(workload, ignore)
    with pytest.raises(BackendError) as caught:
        await machine.backend.start(workload)
    assert await machine.backend.list() == []
    return caught.value


async def test_a_workload_gets_all_of_its_accelerator_and_another_one_nothing(
    machine: VirtualenvMachine, artifact: Artifact
) -> None:
    lit = replace(machine.site.workload(artifact, POLITE), devices=("example.com/lamp=all",))
    async with plugged_in(machine):
        handle = await launch(machine, lit)
        seen = "head -c 2 /dev/lamp | od -An -tx1; echo > /dev/lamp; id -G; cat /opt/lamp/library; echo $LAMP"
        user, *found = (await inside(machine, handle, f"id -u; {seen}")).split()
        assert found == ["00", "00", user, "4321", "4322", "bright", "on"]
        other = await launch(machine, machine.site.workload(artifact, POLITE))
        assert await inside(machine, other, "ls /dev/lamp /opt/lamp 2>/dev/null; echo $LAMP") == ""


async def test_accelerator_of_which_anything_is_missing_is_refused_before_the_start(
    machine: VirtualenvMachine, artifact: Artifact
) -> None:
    lit = replace(machine.site.workload(artifact, POLITE), devices=("example.com/lamp=all",))
    error = await refusal(machine, lit)
    assert (error.reason, error.retryable) == ("DeviceMissing", True)
    assert "has no example.com/lamp=all; make the CDI file" in error.message
    for part in ("node", "library"):
        async with plugged_in(machine):
            await machine.site.device.run("rm", f"/run/lamp/{part}")
            error = await refusal(machine, lit)
            assert (error.reason, error.retryable) == ("DeviceMissing", True)
            assert f"wants /run/lamp/{part}, which is not there" in error.message
    async with plugged_in(machine):
        await launch(machine, lit)


async def test_files_of_an_accelerator_that_lie_where_no_workload_looks_are_shown(
    machine: VirtualenvMachine, artifact: Artifact
) -> None:
    same = [{"hostPath": f"/run/lamp/{name}", "containerPath": f"/run/lamp/{name}", **options} for name, options in [
        ("library", {}), ("node", {"options": ["rw"]}),
    ]]  # fmt: skip
    device = {"name": "all", "containerEdits": {"mounts": same}}
    lit = replace(machine.site.workload(artifact, POLITE), devices=("example.com/lamp=all",))
    async with plugged_in(machine, {**LAMP, "devices": [device]}):
        handle = await launch(machine, lit)
        assert await inside(machine, handle, "cat /run/lamp/library; ls /run/lamp") == "bright\nlibrary\nnode"


OPEN = frozenset({"root", "writable-root", "host-pid", "host-ipc"})


async def test_device_without_a_sandbox_says_so_and_runs_what_allows_that_by_name(
    machine: VirtualenvMachine, artifact: Artifact
) -> None:
    plain = machine.site.workload(artifact, "pwd; cat main.py; exec python -c 'import sys; print(sys.prefix)'")
    named = replace(plain, allow=OPEN)
    async with machine.no_sandbox():
        able = (await machine.backend.probe()).capabilities
        assert (able.isolation, able.mounts, able.volumes, able.secrets, able.shared_memory_limit) == (
            "", False, False, False, False
        )  # fmt: skip
        for lacking in OPEN:
            with pytest.raises(Unsupported, match=f"no sandbox .bubblewrap is not installed.; .* or name {lacking} in"):
                await machine.backend.prepare(replace(plain, allow=OPEN - {lacking}), ignore)
        handle = await launch(machine, named)
        seen = await await_observed(machine.backend, handle, has_ended)
        assert seen.exit_code == 0
        lines = await await_lines(machine.backend, handle, 3)
        assert lines[0].endswith("/files")
        assert lines[1] == "print('here')"
        assert "/environments/" in lines[2]
    # As soon as there is one, without another start of the agent.
    assert (await machine.backend.probe()).capabilities.isolation == "bubblewrap"
    await launch(machine, machine.site.workload(artifact, POLITE))


async def test_without_a_sandbox_a_workload_has_no_rights_of_roots_and_ends_with_all_it_started(
    machine: VirtualenvMachine, artifact: Artifact
) -> None:
    script = f"sleep 86421 & setsid sleep 86421 & {POLITE}"
    async with machine.no_sandbox():
        handle = await launch(machine, replace(machine.site.workload(artifact, script), allow=OPEN))
        status = await inside(machine, handle, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status")
        assert {line.split()[1] for line in status.splitlines()} == {"0" * 16, "1"}

        async def sleeping(number: int) -> bool:
            return await machine.site.device.run("sh", "-c", "pgrep -fc '^sleep 86421' || true") == f"{number}\n"

        await until_holds(lambda: sleeping(2))
        await machine.backend.stop(handle, 5)
        assert (await await_observed(machine.backend, handle, has_ended)).exit_code == 0
        assert await sleeping(0)


async def test_without_a_sandbox_what_needs_one_is_refused_by_name(
    machine: VirtualenvMachine, artifact: Artifact
) -> None:
    wanted: dict[str, dict[str, Any]] = {
        "no mounts": {"mounts": (Mount("/run/lamp", "/in"),)},
        "no volumes": {"volumes": (Volume("data", "/data"),)},
        "no secrets": {"secrets": (Secret("token", "/run/secrets/token", b"hush"),)},
        "no limit of shared memory": {"resources": Resources(shared_memory_bytes=1)},
    }
    async with machine.no_sandbox(), plugged_in(machine):
        workload = replace(machine.site.workload(artifact, POLITE), allow=OPEN)
        for said, changes in wanted.items():
            with pytest.raises(Unsupported, match=said):
                await machine.backend.prepare(replace(workload, **changes), ignore)
        error = await refusal(machine, replace(workload, devices=("example.com/lamp=all",)))
        assert (error.reason, error.retryable) == ("Unsupported", False)
        assert "is to be found at /dev/lamp, /opt/lamp/library, which takes a sandbox" in error.message
