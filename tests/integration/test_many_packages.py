"""As many packages as a spec can name, with real package managers."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.builds.model import BuildFailed
from tests.support.building import SMALL_BASE, Workshop, open_workshop
from tests.support.trust import trusted_too
from tests.support.wheel_index import running_wheel_index, wheel

pytestmark = [pytest.mark.podman, pytest.mark.xdist_group("many-packages")]

MANY = 10_000


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path) as opened:
        yield opened
        assert opened.leftovers() == []


@pytest.mark.slow
async def test_ten_thousand_python_packages_are_installed_and_listed(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"number-{number}" for number in range(MANY)]
    async with running_wheel_index(tmp_path / "index", dict(wheel(name, "1.0") for name in names)) as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted_too(index.ca_file, tmp_path)))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        job = workshop.job("many", {"packages": {"pypi": [f"{name}==1.0" for name in names]}})
        result = await workshop.builder.build(job, lambda *line: workshop.lines.append(line), lambda _: None)
    listed = {part.get("purl") for part in json.loads(result.sbom)["components"]}
    assert {f"pkg:pypi/{name}@1.0" for name in names} <= listed
    asked = "import number_0, number_9999, importlib.metadata as m; print(len(list(m.distributions())))"
    options = ("--rm", "--network", "host", "--pids-limit", "0", "--no-hosts")
    image = "localhost/longshore/build/x86-cpu:many"
    assert int(workshop.podman("run", *options, image, "python", "-c", asked)) >= MANY


async def test_ten_thousand_names_that_apt_does_not_know_are_answered_precisely(workshop: Workshop) -> None:
    names = ["hello", *(f"no-such-package-{number}" for number in range(MANY - 1))]
    with pytest.raises(BuildFailed) as caught:
        await workshop.build(workshop.job("unknown", {"base": SMALL_BASE, "packages": {"apt": names}}))
    assert (caught.value.reason, caught.value.retryable) == ("PackageNotFound", False)
    # One of them; of those that are there none.
    assert re.search(r"apt has no package no-such-package-\d+ for this base", caught.value.message)
    assert caught.value.step == f"RUN apt-get install ({MANY} packages)"
    assert len(caught.value.last_lines) == 20
    assert any(line.endswith(f"no-such-package-{MANY - 2}") for line in caught.value.last_lines)
