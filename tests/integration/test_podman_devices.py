"""An accelerator comes into a container by the Container Device Interface, or the start fails with what to do."""

import json
from dataclasses import replace

import pytest

from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.model import Artifact
from tests.contract.machine import ignore
from tests.integration.podman_fixtures import image, machine, site
from tests.support.podman_machine import PodmanMachine

__all__ = ["image", "machine", "site"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("podman-containers"),
    pytest.mark.asyncio(loop_scope="module"),
]
# Any device node does for one: what is in it is the vendor's matter.
NODE = {"path": "/dev/lamp", "hostPath": "/dev/zero"}
EDITS = {"env": ["LAMP=on"], "deviceNodes": [NODE]}
CDI = {
    "cdiVersion": "0.5.0",
    "kind": "example.com/lamp",
    "devices": [{"name": "all", "containerEdits": EDITS}],
}


async def test_a_workload_gets_its_accelerator_and_fails_where_there_is_none(
    machine: PodmanMachine, image: Artifact
) -> None:
    workload = machine.site.workload(image, "sleep 1000")
    lit = replace(workload, devices=("example.com/lamp=all",))
    await machine.backend.prepare(lit, ignore)
    with pytest.raises(BackendError, match=r"has no example\.com/lamp=all; make the CDI file") as caught:
        await machine.backend.start(lit)
    assert (caught.value.reason, caught.value.retryable) == ("DeviceMissing", True)
    # The device's own: /etc is the machine's.
    write = f"mkdir -p /run/cdi && cat > /run/cdi/lamp.json <<'END'\n{json.dumps(CDI)}\nEND"
    await machine.site.device.run("sh", "-c", write)
    handle = await machine.backend.start(lit)
    seen = await machine.backend.exec(
        handle, ["sh", "-c", "ls /dev/lamp; echo for commands: $LAMP; cat /proc/1/environ"], 20
    )
    assert b"/dev/lamp\n" in seen.output
    assert b"LAMP=on" in seen.output
    assert b"for commands: on" in seen.output
    session = await machine.backend.open_exec(handle, ["sh", "-c", "echo for sessions: $LAMP"], None)
    assert await session.read() == ("stdout", b"for sessions: on\n")
    await session.close()
