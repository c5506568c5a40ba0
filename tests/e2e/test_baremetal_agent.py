"""The whole way to a device without containers: the digits example as a bundle, by the commands that users have."""

import asyncio
import json
import shutil
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from longshore.v1 import device_pb2
from tests.support.async_waiting import until_holds
from tests.support.site import Site, running_site

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("baremetal")]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    async with running_site(folder, build=False, program="baremetal_agent.main") as made:
        yield made
        await made.stop_agent()
        await made.device.run(*made.agent_argv("leave"))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's, with a bundle as its artifact."""
    folder = tmp_path_factory.mktemp("digits")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    path = folder / "deployment.yml"
    path.write_text(path.read_text() + "    artifact: bundle\n")
    return path


def predict(url: str, image: Path) -> int:
    with urllib.request.urlopen(urllib.request.Request(url, image.read_bytes()), timeout=10) as answer:
        return int(json.load(answer)["digit"])


async def status(site: Site) -> dict[str, object]:
    (instance,) = json.loads((await site.longshore("instances", "digits", "-o", "json")).out)
    return dict(instance["status"])


async def url_of(site: Site) -> str:
    (where,) = json.loads((await site.longshore("instances", "digits", "-o", "json")).out)[0]["status"]["endpoints"]
    return f"http://{where['host']}:{where['port']}/predict"


async def processes(site: Site) -> set[str]:
    """Number and start of the workload's processes, as the device's kernel tells."""
    script = "for p in $(pgrep -f '^[^ ]*python[^ ]* server.py$'); do echo $p $(cut -d' ' -f22 /proc/$p/stat); done"
    return set((await site.device.run("sh", "-c", script)).splitlines())


async def test_digits_are_deployed_as_a_bundle_and_answer_unseen_images(site: Site, spec: Path) -> None:
    deployed = await site.longshore("deploy", "-f", str(spec), "--wait", "--timeout", "240s")
    assert deployed.code == 0, deployed.err + site.logs()
    url = await url_of(site)
    labels: dict[str, int] = json.loads((EXAMPLE / "requests" / "labels.json").read_text())
    answers = {name: await asyncio.to_thread(predict, url, EXAMPLE / "requests" / name) for name in labels}
    assert sum(answers[name] == digit for name, digit in labels.items()) >= 0.9 * len(labels)
    assert "model loaded" in (await site.longshore("logs", "digits")).out
    assert await site.device.run("podman", "ps", "-aq") == ""


async def test_agent_that_is_killed_adopts_what_runs(site: Site) -> None:
    before = await processes(site)
    assert len(before) == 1
    await site.stop_agent(kill=True)
    await site.seen_device(lambda device: device.presence == device_pb2.DEVICE_PRESENCE_OFFLINE)
    assert await asyncio.to_thread(predict, await url_of(site), EXAMPLE / "requests" / "00.png") >= 0
    await site.start_agent()
    await site.seen_device(lambda device: device.presence == device_pb2.DEVICE_PRESENCE_ONLINE)
    await until_holds(lambda: is_ready(site))
    assert await processes(site) == before
    assert (await status(site)).get("restarts", 0) == 0


async def is_ready(site: Site) -> bool:
    return (await status(site)).get("ready") is True


async def test_change_of_code_replaces_what_runs(site: Site, spec: Path) -> None:
    before = await processes(site)
    server = spec.with_name("server.py")
    server.write_text(server.read_text() + "\n# changed\n")
    deployed = await site.longshore("deploy", "-f", str(spec), "--wait", "--timeout", "240s")
    assert deployed.code == 0, deployed.err + site.logs()
    assert "digits revision 2 is ready" in deployed.out
    after = await processes(site)
    assert len(after) == 1
    assert after != before
    assert await asyncio.to_thread(predict, await url_of(site), EXAMPLE / "requests" / "00.png") >= 0
    environments = site.folder / "agent/virtualenv/environments"
    assert len(list(environments.iterdir())) == 1


async def test_deletion_leaves_no_process_and_no_folder_of_it(site: Site) -> None:
    deleted = await site.longshore("delete", "digits", "--timeout", "60s")
    assert deleted.code == 0, deleted.err
    assert await processes(site) == set()
    assert list((site.folder / "agent/virtualenv/instances").iterdir()) == []
