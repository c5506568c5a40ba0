"""A model in a project volume: a new version is a deployment of a few megabytes, and undo gives the old one back."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from longshore.v1 import deployment_pb2
from tests.support.site import PROJECT, Site, fetch, running_site, spec_text, status_of

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("project-volumes")]

MIB = 2**20
# Answers with what its model says, and whether it can change it.
SERVER = """
import http.server, signal, sys
from pathlib import Path

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
answer = Path("/models/answer.txt").read_text()
size = Path("/models/weights.bin").stat().st_size
try:
    Path("/models/answer.txt").write_text("changed")
    answer = "not read-only"
except OSError:
    pass


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{answer} {size}".encode())

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", PORT), Handler).serve_forever()
"""
BACKENDS = {"podman": ("edge_agent.main", "image", 8080), "virtualenv": ("baremetal_agent.main", "bundle", 18433)}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BACKENDS)
async def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    program, _, _ = BACKENDS[request.param]
    folder = tmp_path_factory.mktemp(f"volumes-{request.param}")
    async with running_site(folder, build=False, program=program) as made:
        yield made
        await made.stop_agent()
        await made.device.run(*made.agent_argv("leave"))


def spec(site: Site) -> Path:
    _, artifact, port = next(each for each in BACKENDS.values() if each[0] == site.program)
    wanted = yaml.safe_load(spec_text("learned", artifact=artifact, port=port))
    wanted["deploy"]["volumes"] = [{"name": "model", "dst": "/models", "project_volume": "digits-model"}]
    path = site.write(yaml.safe_dump(wanted))
    (path.parent / "server.py").write_text(SERVER.replace("PORT", str(port)))
    return path


def train(folder: Path, answer: str, weights: int) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "answer.txt").write_text(answer)
    (folder / "weights.bin").write_bytes(os.urandom(weights))
    return folder


async def received(site: Site) -> int:
    """Bytes that have come to the device, as its kernel counts them."""
    lines = (await site.device.run("cat", "/proc/net/dev")).splitlines()[2:]
    return sum(int(line.partition(":")[2].split()[0]) for line in lines if not line.strip().startswith("lo:"))


async def ready(site: Site, deployment: deployment_pb2.Deployment, answer: str) -> deployment_pb2.GetDeploymentResponse:
    """The deployment, once its revision is ready, which gives this answer."""

    def so(now: deployment_pb2.GetDeploymentResponse) -> bool:
        state = deployment_pb2.DeploymentState.Name(now.deployment.state)
        return state.endswith("_READY") and now.deployment.revision == deployment.revision

    reached = await site.eventually(deployment, so, 240, f"revision {deployment.revision} ready")
    assert await fetch(reached) == answer
    return reached


async def test_a_new_version_of_a_model_is_a_deployment_of_its_size_and_undo_gives_the_old_one(
    site: Site, tmp_path: Path
) -> None:
    model = train(tmp_path / "model", "first", 12 * MIB)
    (model / "base.bin").write_bytes(os.urandom(20 * MIB))
    first = (await site.call(site.client.push_volume, "digits-model", PROJECT, [model])).version
    path = spec(site)
    applied = await site.call(site.client.deploy, path, PROJECT, files=["server.py"])
    before = await ready(site, applied.deployment, f"first {12 * MIB}")
    assert [volume.digest for volume in before.instances[0].project_volumes] == [first.digest]

    train(model, "second", 3 * MIB)
    second = (await site.call(site.client.push_volume, "digits-model", PROJECT, [model])).version
    come = await received(site)
    build_id = before.deployment.build_id
    applied = await site.call(site.client.deploy, path, PROJECT, build_id=build_id)
    after = await ready(site, applied.deployment, f"second {3 * MIB}")
    moved = await received(site) - come
    assert 3 * MIB < moved < 5 * MIB, "what changed, and what is said about it"
    assert [volume.digest for volume in after.instances[0].project_volumes] == [second.digest]
    assert status_of(after).artifact_digest == status_of(before).artifact_digest

    come = await received(site)
    undone = await site.call(site.client.undo, before.deployment.id)
    await ready(site, undone.deployment, f"first {12 * MIB}")
    assert await received(site) - come < MIB, "it was still there"
    with pytest.raises(Exception, match="device may return to it"):
        await site.call(site.client.delete_volume, PROJECT, "digits-model")
    await site.delete(undone.deployment)
