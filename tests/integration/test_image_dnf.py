"""Packages of dnf, installed by a real dnf from a repository that only this machine's certificates open."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from controller.builds.model import BuildFailed, BuildResult, TargetJob
from tests.support.building import Workshop, open_workshop
from tests.support.package_folder import PackageFolder, running_package_folder
from tests.support.rpms import make_rpm_base
from tests.support.trust import trusted_too

# One storage for all: the base is made once.
pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("image-dnf")]

DATABASE = {f"/var/lib/rpm/{name}" for name in (".rpm.lock", "rpmdb.sqlite", "rpmdb.sqlite-shm")}


class DnfSite:
    """A workshop, the repository that its base names, and that base."""

    def __init__(self, workshop: Workshop, repository: PackageFolder, base: str) -> None:
        self.workshop = workshop
        self.repository = repository
        self.base = base

    def job(self, build_id: str, spec: dict[str, Any], **more: Any) -> TargetJob:
        return self.workshop.job(build_id, {"base": self.base, **spec}, **more)

    async def build(self, job: TargetJob) -> BuildResult:
        return await self.workshop.builder.build(job, lambda *line: self.workshop.lines.append(line), lambda _: None)

    def run(self, build_id: str, *command: str) -> str:
        image = f"localhost/longshore/build/x86-cpu:{build_id}"
        options = ("--rm", "--network", "host", "--pids-limit", "0", "--no-hosts", "--entrypoint", command[0])
        return self.workshop.podman("run", *options, image, *command[1:])

    def added(self, build_id: str) -> set[str]:
        """Files, not folders, that the image has more than its base or otherwise."""
        image = f"localhost/longshore/build/x86-cpu:{build_id}"
        lines = self.workshop.podman("image", "diff", image, "localhost/longshore/build/x86-cpu:rpms").splitlines()
        paths = {line.partition(" ")[2] for line in lines if line}
        return {path for path in paths if not any(other.startswith(f"{path}/") for other in paths)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DnfSite]:
    folder = tmp_path_factory.mktemp("dnf")
    async with open_workshop(folder) as workshop, running_package_folder(folder / "rpms") as repository:
        base = await make_rpm_base(workshop, repository)
        # As behind a proxy that looks into connections: the base knows nothing of this authority.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(trusted_too(repository.ca_file, folder)))
            yield DnfSite(workshop, repository, base)


@pytest.fixture
def site(module_site: DnfSite) -> Iterator[DnfSite]:
    module_site.workshop.lines.clear()
    module_site.repository.asked.clear()
    yield module_site
    module_site.repository.deaf = False
    assert module_site.workshop.leftovers() == []


async def failure_of(site: DnfSite, names: Sequence[str], **more: Any) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        await site.build(site.job("failing", {"packages": {"dnf": list(names)}, **more}))
    return caught.value


async def test_packages_and_what_they_need_are_installed_and_nothing_else(site: DnfSite) -> None:
    result = await site.build(site.job("installed", {"packages": {"dnf": ["welcome"]}}))
    assert site.run("installed", "welcome") + site.run("installed", "greeting") == "welcome 1.0\ngreeting 1.0\n"
    assert site.added("installed") == {"/usr/bin/welcome", "/usr/bin/greeting", *DATABASE}
    purls = {part.get("purl") for part in json.loads(result.sbom)["components"]}
    assert {purl for purl in purls if purl.startswith("pkg:rpm/")} == {
        "pkg:rpm/debian/greeting@1.0-1?arch=noarch",
        "pkg:rpm/debian/welcome@1.0-1?arch=noarch",
    }


async def test_packages_that_were_fetched_once_are_not_fetched_again(site: DnfSite) -> None:
    for build_id, names in (("once", ["greeting-1.0"]), ("again", ["greeting-1.0-1"])):
        site.repository.asked.clear()
        await site.build(site.job(build_id, {"packages": {"dnf": names}}))
    assert site.run("again", "greeting") == "greeting 1.0\n"
    assert site.repository.asked["greeting-1.0-1.noarch.rpm"] == 0


async def test_the_same_packages_give_the_same_image(site: DnfSite) -> None:
    digests = set()
    for number in range(2):
        job = site.job(f"same{number}", {"packages": {"dnf": ["welcome-1.0-1", "greeting-1.0-1"]}}, no_cache=True)
        result = await site.build(job)
        assert result.artifact is not None
        digests.add(result.artifact.digest)
    assert len(digests) == 1


async def test_packages_that_cannot_be_had_are_said_precisely(site: DnfSite) -> None:
    missing = await failure_of(site, ["welcome", "no-such-package"])
    assert (missing.reason, missing.retryable) == ("PackageNotFound", False)
    assert "no-such-package" in missing.message
    conflict = await failure_of(site, ["welcome", "greeting-2.0"])
    assert (conflict.reason, conflict.retryable) == ("PackageConflict", False)
    assert any("requires greeting = 1.0" in line for line in conflict.last_lines)


async def test_a_repository_that_does_not_answer_is_tried_again(site: DnfSite) -> None:
    site.repository.deaf = True
    # By another name, with a cache that has nothing yet.
    base = f"{site.base.partition('@')[0]}:rpms"
    failure = await failure_of(site, ["welcome"], base=base)
    assert (failure.reason, failure.retryable) == ("PackageIndexUnreachable", True)


async def test_sudo_and_python_come_from_the_repository_and_leave_nothing_else(site: DnfSite) -> None:
    spec = {"packages": {"pypi": ["six==1.17.0"]}, "allow_root": True}
    await site.build(site.job("python", spec))
    assert site.run("python", "sudo") == "sudo 1.9\n"
    assert site.run("python", "python3", "-c", "import six; print(six.__version__)") == "1.17.0\n"
    added = {path for path in site.added("python") if not path.startswith("/opt/venv/")}
    assert added == {"/usr/bin/sudo", "/usr/bin/python3", *DATABASE}
