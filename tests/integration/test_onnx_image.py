"""A spec that names just a model becomes an image that serves it, as no root and on a read-only file system."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller.builds.model import TargetJob
from controller.builds.targets import load_profiles
from controller.spec.loader import load_spec
from tests.support.building import Workshop, open_workshop
from tests.support.inference import DIGITS

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("onnx-image")]

SPEC = """\
version: 1
name: digits
build: {runtime: {kind: onnx, path: model/digits.onnx}}
targets: [{profile: PROFILE}]
"""
# What a board says of itself (Cortex-A72). The emulator shows this machine's own processors, which onnxruntime takes
# for ARM ones and fails.
PROCESSOR = """\
processor	: {}
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3
"""
CLIENT = Path(__file__).parents[1] / "support" / "onnx_client.py"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workshop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path_factory.mktemp("onnx-image")) as workshop:
        yield workshop
        assert workshop.leftovers() == []


async def job_for(workshop: Workshop, profile: str, model: bytes) -> TargetJob:
    spec = load_spec(SPEC.replace("PROFILE", profile).encode(), load_profiles())
    file = await workshop.upload("model/digits.onnx", model)
    job = workshop.job(f"b-{profile}", {}, [file], profile=profile, target=profile)
    # Pushing is the matter of other tests, and these images are large.
    return replace(job, spec=spec.build.model_copy(update={"push": False}), deploy=spec.deploy)


async def build(workshop: Workshop, job: TargetJob) -> None:
    await workshop.builder.build(job, lambda *line: workshop.lines.append(line), workshop.states.append)


@contextmanager
def container(workshop: Workshop, job: TargetJob, *more: str) -> Iterator[str]:
    """The image's own entrypoint, confined as far as a container can be."""
    image = f"localhost/longshore/build/{job.profile}:{job.build_id}"
    name = f"onnx-{job.profile}"
    options = ("--network", "none", "--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp", "--cap-drop", "all")
    workshop.podman("run", "-d", "--name", name, *options, "--pids-limit", "0", *more, image)
    try:
        yield name
    finally:
        workshop.podman("rm", "-f", "-t", "0", name)


def answers(workshop: Workshop, name: str) -> dict[str, Any]:
    said = workshop.podman("exec", name, "python", "-c", CLIENT.read_text(), "/app/model/digits.onnx")
    answer: dict[str, Any] = json.loads(said)
    return answer


async def test_a_model_alone_is_served_over_rest_and_grpc(workshop: Workshop) -> None:
    job = await job_for(workshop, "x86-cpu", DIGITS.read_bytes())
    await build(workshop, job)
    with container(workshop, job, "--env", "OMP_NUM_THREADS=1") as name:
        answer = answers(workshop, name)
        assert answer["user"] == 1000
        assert len(answer["itself"]) == 10
        assert answer["rest"] == answer["grpc"] == answer["itself"]
        assert "serving digits on CPUExecutionProvider, 1 threads" in workshop.podman("logs", name)


@pytest.mark.slow
async def test_a_model_alone_is_served_on_a_64_bit_arm_board(workshop: Workshop, tmp_path: Path) -> None:
    job = await job_for(workshop, "arm64-cpu", DIGITS.read_bytes())
    await build(workshop, job)
    (tmp_path / "cpuinfo").write_text("\n".join(PROCESSOR.format(number) for number in range(2)))
    with container(workshop, job, "--volume", f"{tmp_path}/cpuinfo:/proc/cpuinfo:ro") as name:
        answer = answers(workshop, name)
        assert answer["machine"] == "aarch64"
        assert answer["rest"] == answer["grpc"] == pytest.approx(answer["itself"])
