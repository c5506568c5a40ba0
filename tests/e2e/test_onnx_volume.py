"""The runtime `onnx` serves a model that lies in a project volume: another model is served without a build."""

import json
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from longshore.v1 import deployment_pb2
from tests.support.inference import DIGITS
from tests.support.site import PROJECT, Site, running_site, status_of

pytestmark = [
    pytest.mark.podman,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("onnx-volume"),
]

SPEC = """\
version: 1
name: digits
build: {runtime: {kind: onnx, path: /models/digits.onnx}}
deploy:
  network: {ports: [{name: http, container: 18434}, {name: grpc, container: 18435}]}
  volumes: [{name: model, dst: /models, project_volume: digits-model}]
targets: [{profile: x86-cpu, artifact: bundle}]
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("onnx-volume")
    async with running_site(folder, build=False, program="baremetal_agent.main") as made:
        yield made
        await made.stop_agent()
        await made.device.run(*made.agent_argv("leave"))


async def metadata(site: Site, answer: deployment_pb2.GetDeploymentResponse) -> dict[str, object]:
    """What the served model says of itself."""
    where = next(endpoint for endpoint in status_of(answer).endpoints if endpoint.name == "http")

    def get() -> dict[str, object]:
        with urllib.request.urlopen(f"http://{where.host}:{where.port}/v2/models/digits", timeout=10) as reply:
            return dict(json.load(reply))

    return dict(await site.call(get))


async def test_a_model_in_a_volume_is_served_and_needs_no_file_beside_the_deployment(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "digits.onnx").write_bytes(DIGITS.read_bytes())
    pushed = await site.longshore(
        "volume", "push", "digits-model", str(tmp_path), "-u", PROJECT.user_id, "-p", PROJECT.project_id
    )  # fmt: skip
    assert pushed.code == 0, pushed.err
    path = site.write(SPEC)
    deployed = await site.longshore(
        "deploy", "-f", str(path), "-u", PROJECT.user_id, "-p", PROJECT.project_id, "--wait", "--timeout", "280s"
    )  # fmt: skip
    assert deployed.code == 0, f"{deployed.err}\n{site.logs()}"
    answer = await site.call(site.client.find_deployment, PROJECT, "digits")
    assert (await metadata(site, answer))["name"] == "digits"
