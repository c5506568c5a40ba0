"""The whole way with nothing but what users have: the digits example, the two commands, HTTP."""

import asyncio
import json
import shutil
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.site import Site, running_site

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("digits")]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("site"), build=False) as made:
        yield made


def edited(folder: Path, **files: str) -> Path:
    """A copy of the example with another server.py or deployment.yml; the latter's path."""
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    for name, text in files.items():
        (folder / {"server": "server.py", "spec": "deployment.yml"}[name]).write_text(text)
    return folder / "deployment.yml"


def predict(url: str, image: Path) -> int:
    with urllib.request.urlopen(urllib.request.Request(url, image.read_bytes()), timeout=10) as answer:
        return int(json.load(answer)["digit"])


async def test_digits_are_deployed_answer_unseen_images_and_go_again(site: Site) -> None:
    deployed = await site.longshore("deploy", "-f", str(EXAMPLE / "deployment.yml"), "--wait", "--timeout", "240s")
    assert deployed.code == 0, deployed.err
    assert "digits revision 1 is ready" in deployed.out
    (instance,) = json.loads((await site.longshore("instances", "digits", "-o", "json")).out)
    status = instance["status"]
    assert (status["state"], status["ready"]) == ("INSTANCE_STATE_RUNNING", True)
    assert status["artifact_digest"].startswith("sha256:")
    (where,) = status["endpoints"]
    url = f"{where['scheme']}://{where['host']}:{where['port']}/predict"
    labels: dict[str, int] = json.loads((EXAMPLE / "requests" / "labels.json").read_text())
    answers = {name: await asyncio.to_thread(predict, url, EXAMPLE / "requests" / name) for name in labels}
    assert sum(answers[name] == digit for name, digit in labels.items()) >= 0.9 * len(labels)
    assert "model loaded" in (await site.longshore("logs", "digits")).out
    stopped = await site.longshore("stop", "digits", "--timeout", "60s")
    assert stopped.code == 0, stopped.err
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(predict, url, EXAMPLE / "requests" / "00.png")
    deleted = await site.longshore("delete", "digits", "--timeout", "60s")
    assert deleted.code == 0, deleted.err
    assert (await site.longshore("instances", "digits")).code == 1


async def test_service_that_crashes_at_start_ends_the_wait_with_its_last_words(site: Site, tmp_path: Path) -> None:
    file = edited(tmp_path, server="raise SystemExit('the model is missing')\n")
    crashed = await site.longshore("deploy", "-f", str(file), "-p", "crash", "--wait", "--timeout", "240s")
    assert crashed.code == 1, crashed.err
    assert "failed: " in crashed.err
    assert "  | the model is missing" in crashed.err
    assert (await site.longshore("delete", "digits", "-p", "crash", "--timeout", "60s")).code == 0


async def test_package_that_does_not_exist_ends_the_wait_with_reason_step_and_output(
    site: Site, tmp_path: Path
) -> None:
    text = (EXAMPLE / "deployment.yml").read_text().replace("numpy>=1.26,<3", "longshore-no-such-package==9.9")
    file = edited(tmp_path, spec=text)
    failed = await site.longshore("deploy", "-f", str(file), "-p", "typo", "--wait", "--timeout", "240s")
    assert failed.code == 1, failed.err
    assert "failed: PackageNotFound: " in failed.err
    assert "longshore-no-such-package" in failed.err.split("failed: ")[1]
    (entry,) = json.loads((await site.longshore("deployments", "-p", "typo", "-o", "json")).out)
    assert entry["state"] == "DEPLOYMENT_STATE_FAILED"
    built = await site.longshore("build", "-f", str(file), "-p", "typo")
    assert built.code == 1, built.err
    assert "failed: PackageNotFound: " in built.err
