"""What instances use, all the way from a device's words at the broker to what a person reads."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.builds.model import BuildState
from controller.deployments.model import Wish, WorkloadRow
from controller.store import Transaction, open_store
from edge_agent.runtime.enrollment import EnrollmentRequest, enroll_blocking
from longshore.client import Client
from longshore.topics import Topic
from longshore.v1 import deployment_pb2, device_pb2, mqtt_pb2, types_pb2
from tests.support.rows import ARTIFACT, build, deployment
from tests.support.sync_stack import SyncStack, running_stack
from tests.support.talking_device import TalkingDevice
from tests.support.waiting import eventually

GPU = mqtt_pb2.AcceleratorUse(name="NVIDIA T4", busy_percent=40)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[SyncStack]:
    with running_stack(tmp_path / "stack") as made:
        yield made


def give(stack: SyncStack, device_id: str) -> None:
    """Afterwards the device is to run a deployment, whatever was built."""

    def fill(tx: Transaction) -> None:
        tx.builds.add(build(BuildState.SUCCEEDED), "")
        tx.deployments.add(deployment())
        tx.workloads.put(WorkloadRow("dep-1", device_id, 1, Wish.RUN, ARTIFACT, b""))

    stack.crash_controller()
    with closing(open_store(stack.stack.folder.database)) as store:
        store.transact_now(fill)
    stack.start_controller()


def said(cpu: int) -> mqtt_pb2.Metrics:
    metrics = mqtt_pb2.InstanceMetrics(
        deployment_id="dep-1", revision=1, cpu_millis=cpu, memory_kib=2048, memory_peak_kib=4096,
        network_sent_bytes=5 * 2**20, accelerators=[GPU],
    )  # fmt: skip
    return mqtt_pb2.Metrics(instances=[metrics])


def state(client: Client) -> types_pb2.InstanceState.ValueType:
    (instance,) = client.list_instances(deployment_id="dep-1")
    return instance.status.state


def used(client: Client) -> deployment_pb2.InstanceUse | None:
    (instance,) = client.list_instances(deployment_id="dep-1")
    return instance.use if instance.HasField("use") else None


def test_what_a_device_measured_is_listed_and_shown(stack: SyncStack, tmp_path: Path) -> None:
    with stack.client() as client:
        token = client.create_enroll_token(device_name="edge-9").token
        facts = device_pb2.DeviceFacts(architecture="amd64")
        identity = enroll_blocking(tmp_path / "agent", EnrollmentRequest(token, facts))
        give(stack, identity.device_id)
        device = TalkingDevice(identity)
        running = types_pb2.InstanceStatus(deployment_id="dep-1", revision=1, state=types_pb2.INSTANCE_STATE_RUNNING)
        device.say(Topic.STATUS, mqtt_pb2.StatusSnapshot(sequence=1, instances=[running]))
        # What is measured is not kept for a controller that does not listen yet.
        eventually(lambda: state(client) == types_pb2.INSTANCE_STATE_RUNNING, seconds=30)
        device.say(Topic.METRICS, said(1000))
        eventually(lambda: used(client) is not None)
        device.say(Topic.METRICS, said(1500))
        eventually(lambda: (use := used(client)) is not None and use.HasField("cpu_millis_per_second"))
        use = used(client)
        assert use is not None
        assert use.metrics == said(1500).instances[0]
        command = [sys.executable, "-m", "controller.cli.main", "top", "--all-projects"]
        told = subprocess.run(
            command, env={"LONGSHORE_CONTEXT": str(stack.context_file)}, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        assert told[0].split()[:3] == ["DEPLOYMENT", "DEVICE", "CPU"]
        assert "2.0 MiB  4.0 MiB  0 B       5.0 MiB  0 B   0 B      NVIDIA T4 40 %" in told[1]
        watching = subprocess.Popen(
            [*command, "--watch", "--interval", "0.2"], env={"LONGSHORE_CONTEXT": str(stack.context_file)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert watching.stdout is not None
        pictures = [watching.stdout.readline() for _ in range(4)]
        assert [line.split()[0] for line in pictures] == ["DEPLOYMENT", "digits"] * 2
        watching.send_signal(signal.SIGINT)
        assert "Traceback" not in watching.communicate(timeout=30)[1]
        assert watching.returncode == 130
        # What was measured says nothing of another instance.
        stopped = types_pb2.InstanceStatus(deployment_id="dep-1", revision=1, state=types_pb2.INSTANCE_STATE_BACKOFF)
        device.say(Topic.STATUS, mqtt_pb2.StatusSnapshot(sequence=2, instances=[stopped]))
        eventually(lambda: used(client) is None)
        device.leave()
