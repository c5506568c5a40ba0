"""Packages of apk, installed by Alpine's own from a repository that only this machine's certificates open.

Slow only since the Alpine comes with a virtual machine's image, of 85 MB.
"""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from controller.builds.emulation import own_architecture
from controller.builds.model import BuildFailed, BuildResult
from tests.support.apks import make_apk_base
from tests.support.building import Workshop, open_workshop
from tests.support.package_folder import PackageFolder, running_package_folder
from tests.support.trust import trusted_too

pytestmark = [
    pytest.mark.podman, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("image-apk"),
    pytest.mark.skipif(own_architecture() != "amd64", reason="the Alpine is one for amd64"),
]  # fmt: skip

DATABASE = {"/etc/apk/world", "/usr/lib/apk/db/installed"}


class ApkSite:
    """A workshop, the repository that its base names, and that base."""

    def __init__(self, workshop: Workshop, repository: PackageFolder, base: str) -> None:
        self.workshop = workshop
        self.repository = repository
        self.base = base

    async def build(
        self, build_id: str, names: Sequence[str], spec: dict[str, Any] | None = None, **more: Any
    ) -> BuildResult:
        packages = {"packages": {"apk": list(names)}} if names else {}
        job = self.workshop.job(build_id, {"base": self.base, **packages, **(spec or {})}, **more)
        return await self.workshop.builder.build(job, lambda *line: self.workshop.lines.append(line), lambda _: None)

    async def failure(self, names: Sequence[str], spec: dict[str, Any] | None = None) -> BuildFailed:
        with pytest.raises(BuildFailed) as caught:
            await self.build("failing", names, spec)
        return caught.value

    def run(self, build_id: str, *command: str) -> str:
        image = f"localhost/longshore/build/x86-cpu:{build_id}"
        options = ("--rm", "--network", "host", "--pids-limit", "0", "--no-hosts", "--entrypoint", command[0])
        return self.workshop.podman("run", *options, image, *command[1:])

    def added(self, build_id: str) -> set[str]:
        """Files, not folders, that the image has more than its base or otherwise."""
        image = f"localhost/longshore/build/x86-cpu:{build_id}"
        lines = self.workshop.podman("image", "diff", image, "localhost/longshore/build/x86-cpu:apks").splitlines()
        paths = {line.partition(" ")[2] for line in lines if line}
        return {path for path in paths if not any(other.startswith(f"{path}/") for other in paths)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ApkSite]:
    folder = tmp_path_factory.mktemp("apk")
    async with open_workshop(folder) as workshop, running_package_folder(folder / "apks") as repository:
        base = await make_apk_base(workshop, repository)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(trusted_too(repository.ca_file, folder)))
            patch.setenv("no_proxy", "127.0.0.1")
            yield ApkSite(workshop, repository, base)


@pytest.fixture
def site(module_site: ApkSite) -> Iterator[ApkSite]:
    module_site.workshop.lines.clear()
    module_site.repository.asked.clear()
    yield module_site
    module_site.repository.deaf = False
    assert module_site.workshop.leftovers() == []


async def test_packages_and_what_they_need_are_installed_and_nothing_else(site: ApkSite) -> None:
    result = await site.build("installed", ["welcome"])
    assert site.run("installed", "welcome") + site.run("installed", "greeting") == "welcome 1.0\ngreeting 1.0\n"
    assert site.added("installed") == {"/usr/bin/welcome", "/usr/bin/greeting", *DATABASE}
    purls = {part.get("purl") for part in json.loads(result.sbom)["components"]}
    assert purls == {"pkg:apk/alpine/greeting@1.0-r0?arch=x86_64", "pkg:apk/alpine/welcome@1.0-r0?arch=x86_64"}


async def test_packages_that_were_fetched_once_are_not_fetched_again(site: ApkSite) -> None:
    for build_id, names in (("once", ["greeting=1.0-r0"]), ("again", ["greeting<2"])):
        site.repository.asked.clear()
        await site.build(build_id, names)
    assert site.run("again", "greeting") == "greeting 1.0\n"
    assert site.repository.asked["greeting-1.0-r0.apk"] == 0


async def test_the_same_packages_give_the_same_image(site: ApkSite) -> None:
    digests = set()
    for number in range(2):
        result = await site.build(f"same{number}", ["welcome=1.0-r0", "greeting=1.0-r0"], no_cache=True)
        assert result.artifact is not None
        digests.add(result.artifact.digest)
    assert len(digests) == 1


async def test_packages_that_cannot_be_had_are_said_precisely(site: ApkSite) -> None:
    missing = await site.failure(["welcome", "no-such-package"])
    assert (missing.reason, missing.retryable) == ("PackageNotFound", False)
    assert "no-such-package" in missing.message
    conflict = await site.failure(["welcome", "greeting=2.0-r0"])
    assert (conflict.reason, conflict.retryable) == ("PackageConflict", False)
    assert any("satisfies: world[greeting=2.0-r0]" in line for line in conflict.last_lines), conflict.last_lines


async def test_a_repository_that_does_not_answer_is_tried_again(site: ApkSite) -> None:
    site.repository.deaf = True
    # By another name, with a cache that has nothing yet.
    failure = await site.failure(["welcome"], {"base": f"{site.base.partition('@')[0]}:apks"})
    assert (failure.reason, failure.retryable) == ("PackageIndexUnreachable", True)


async def test_sudo_comes_from_the_repository_and_leaves_nothing_else(site: ApkSite) -> None:
    await site.build("sudo", [], {"allow_root": True})
    assert site.run("sudo", "sudo") == "sudo 1.9\n"
    assert site.added("sudo") == {"/usr/bin/sudo", *DATABASE}
