"""Packages of conda, from a channel of our own, resolved by the real solver and laid out in real images."""

import asyncio
import json
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller.builds import emulation
from controller.builds.model import BuildFailed, BuildResult
from tests.support.async_waiting import until
from tests.support.building import SMALL_BASE, Workshop, open_workshop
from tests.support.conda_channel import PLACEHOLDER, CondaChannel, CondaPackage, running_conda_channel
from tests.support.trust import trusted_too

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("image-conda")]

MODULE = "NAMES = {'one', 'two'}\n\n\ndef main():\n    print('wise', __file__)\n"
# Runs the distribution's Python as conda's own would be run.
PYTHON = f'#!/bin/sh\nPYTHONPATH={PLACEHOLDER}/lib/python3.11/site-packages exec /usr/bin/python3.11 "$@"\n'
SCRIPT = 'echo "$PKG_NAME $PKG_VERSION $PKG_BUILDNUM in $PREFIX" >> "$PREFIX/said"\n'
ANSWERS = f"#!/bin/sh\ncat {PLACEHOLDER}/share/oracle\n"
PACKAGES = [
    CondaPackage("oracle", "1.0", files={"share/oracle": "the first\n"}),
    CondaPackage("oracle", "2.0", files={"share/oracle": "the second\n", "bin/.oracle-post-link.sh": SCRIPT}),
    *(
        CondaPackage(
            "answers", "1.0", subdir, ("oracle ==1.0", "__glibc >=2.30,<3.0.a0"),
            {"bin/answers": ANSWERS, "lib/answers.so": word + PLACEHOLDER.encode() + b"/lib\0end"},
        )
        for subdir, word in (("linux-64", b"x86\0"), ("linux-aarch64", b"arm\0"))
    ),
    CondaPackage("future", "1.0", "linux-64", ("__glibc >=9",), {"share/future": ""}),
    CondaPackage("python", "3.11.2", "linux-64", (), {"bin/python3.11": PYTHON}),
    CondaPackage(
        "wise", "1.0", "noarch", ("python >=3.11",),
        {"site-packages/wise.py": MODULE, "site-packages/wise-1.0.dist-info/METADATA": "Name: wise\nVersion: 1.0\n"},
        ("wise = wise:main",),
    ),
]  # fmt: skip

INSTALL = """
import asyncio, os, sys
from rattler import BuildString, Client, GenericVirtualPackage, PackageName, Subdir, Version, install, solve
async def main(channel, prefix, *specs):
    client = Client.default_client()
    glibc = GenericVirtualPackage(PackageName("__glibc"), Version("2.36"), BuildString("0"))
    records = await solve([channel], list(specs), platforms=["linux-64", "noarch"], virtual_packages=[glibc])
    await install(
        records, prefix, cache_dir=f"{prefix}.cache", platform=Subdir("linux-64"), client=client, show_progress=False,
        alternative_target_prefix="/opt/conda", installed_packages=[],
    )
asyncio.run(main(*sys.argv[1:]))
os._exit(0)
"""
# Links are the image's own matter; what would be read or written here is not.
EVIL = (
    CondaPackage("secrets", "1.0", files={"share": "-> /etc", "share/passwd": "x"}),
    CondaPackage("elsewhere", "1.0", files={"share/x": "x"}, more={"build": "0/../../../x"}),
)


class CondaSite:
    """A workshop, and the channel that its builds know."""

    def __init__(self, workshop: Workshop, channel: CondaChannel) -> None:
        self.workshop = workshop
        self.channel = channel

    async def build(
        self, build_id: str, *packages: str, spec: dict[str, Any] | None = None, channel: str = "", **more: Any
    ) -> BuildResult:
        conda = {"channels": [channel or self.channel.url], "packages": list(packages)}
        wish = {"base": SMALL_BASE, **(spec or {})}
        wish["packages"] = {**wish.get("packages", {}), "conda": conda}
        job = self.workshop.job(build_id, wish, **more)
        return await self.workshop.builder.build(job, lambda *line: self.workshop.lines.append(line), lambda _: None)

    async def failure(self, *packages: str, **more: Any) -> BuildFailed:
        with pytest.raises(BuildFailed) as caught:
            await self.build("failing", *packages, **more)
        return caught.value

    def run(self, build_id: str, *command: str) -> str:
        image = f"localhost/longshore/build/x86-cpu:{build_id}"
        options = ("--rm", "--network", "host", "--pids-limit", "0", "--no-hosts", "--entrypoint", command[0])
        return self.workshop.podman("run", *options, image, *command[1:])

    def files(self, profile: str, build_id: str) -> dict[str, bytes]:
        """Below /opt/conda, without what installers of conda note."""
        image = f"localhost/longshore/build/{profile}:{build_id}"
        root = Path(self.workshop.podman("image", "mount", image).strip())
        try:
            found = {str(one.relative_to(root / "opt/conda")): one for one in (root / "opt/conda").rglob("*")}
            return {
                name: one.read_bytes() for name, one in found.items()
                if one.is_file() and not one.is_symlink() and not name.startswith("conda-meta/")
            }  # fmt: skip
        finally:
            self.workshop.podman("image", "unmount", image)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[CondaSite]:
    folder = tmp_path_factory.mktemp("conda")
    async with open_workshop(folder) as workshop, running_conda_channel(folder / "channel", PACKAGES) as channel:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(trusted_too(channel.ca_file, folder)))
            patch.setenv("no_proxy", "127.0.0.1")
            yield CondaSite(workshop, channel)


@pytest.fixture
def site(module_site: CondaSite) -> Iterator[CondaSite]:
    module_site.workshop.lines.clear()
    module_site.channel.asked.clear()
    yield module_site
    module_site.channel.deaf = False
    module_site.channel.held.clear()
    module_site.channel.packages = PACKAGES
    assert module_site.workshop.leftovers() == []


async def test_packages_and_what_they_need_run_where_they_are(site: CondaSite) -> None:
    result = await site.build("run", "answers")
    assert site.run("run", "answers") == "the first\n"
    assert site.files("x86-cpu", "run") == {
        "bin/answers": b"#!/bin/sh\ncat /opt/conda/share/oracle\n",
        "share/oracle": b"the first\n",
        "lib/answers.so": b"x86\0" + b"/opt/conda/lib".ljust(len(PLACEHOLDER) + 4, b"\0") + b"\0end",
    }
    assert [line for line in site.workshop.output() if line.startswith("STEP ") and " RUN conda" in line] == []
    purls = {part.get("purl", "") for part in json.loads(result.sbom)["components"]}
    named = {purl for purl in purls if purl.startswith("pkg:conda/")}
    assert {purl.partition("?")[0] for purl in named} == {"pkg:conda/answers@1.0", "pkg:conda/oracle@1.0"}
    assert all("build=0&channel=https" in purl for purl in named)


async def test_files_are_those_that_the_librarys_own_installer_makes(site: CondaSite, tmp_path: Path) -> None:
    await site.build("laid", "answers", "wise")
    argv = [sys.executable, "-c", INSTALL, site.channel.url, str(tmp_path / "prefix"), "answers", "wise"]
    await asyncio.to_thread(subprocess.run, argv, check=True)
    installed = {
        str(one.relative_to(tmp_path / "prefix")): one.read_bytes()
        for one in (tmp_path / "prefix").rglob("*")
        if one.is_file() and one.parent.name != "conda-meta" and one.name != "CACHEDIR.TAG"
    }
    ours = {name: content for name, content in site.files("x86-cpu", "laid").items() if not name.endswith(".pyc")}
    assert ours == installed


async def test_modules_come_with_programs_and_byte_code(site: CondaSite) -> None:
    spec = {"base": "python:3.11-slim-bookworm"}
    await site.build("modules", "wise", spec=spec)
    assert site.run("modules", "wise") == "wise /opt/conda/lib/python3.11/site-packages/wise.py\n"
    files = site.files("x86-cpu", "modules")
    (compiled,) = (name for name in files if name.endswith(".pyc"))
    assert compiled == "lib/python3.11/site-packages/__pycache__/wise.cpython-311.pyc"
    # By hashes and not by times, which are set back.
    assert struct.unpack_from("<I", files[compiled], 4) == (1,)


async def test_a_packages_own_script_is_run_in_the_image(site: CondaSite) -> None:
    await site.build("script", "oracle")
    assert site.run("script", "cat", "/opt/conda/said") == "oracle 2.0 0 in /opt/conda\n"


async def test_another_architecture_needs_no_emulation(
    site: CondaSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if emulation.own_architecture() != "amd64":
        pytest.skip("takes arm64 for a foreign architecture")
    monkeypatch.setattr(emulation, "BINFMT", tmp_path / "nothing")
    result = await site.build("arm", "answers", profile="arm64-cpu")
    assert [note for note in result.notes if "emulated" in note] == []
    assert site.files("arm64-cpu", "arm")["lib/answers.so"].startswith(b"arm\0/opt/conda/lib\0")


async def test_packages_are_fetched_once_and_environments_resolved_once(site: CondaSite) -> None:
    code = [await site.workshop.upload("code.py", b"1\n")]
    await site.build("once", "oracle=1.0")
    site.channel.asked.clear()
    changed = await site.build("changed", "oracle=1.0", files=code)
    assert sum(site.channel.asked.values()) == 0
    anew = await site.build("anew", "oracle=1.0", files=code, no_cache=True)
    assert site.channel.asked["oracle-1.0-0.tar.bz2"] == 0
    assert site.channel.asked["repodata.json"] > 0
    assert changed.artifact is not None
    assert anew.artifact is not None
    assert changed.artifact.digest == anew.artifact.digest


async def test_what_cannot_be_had_is_said_precisely(site: CondaSite) -> None:
    missing = await site.failure("answers", "no-such-package")
    assert (missing.reason, missing.retryable) == ("PackageNotFound", False)
    assert "there is no package no-such-package * for linux-64" in missing.message
    assert (await site.failure("oracle==9")).reason == "PackageNotFound"
    for wishes in (["answers", "oracle==2.0"], ["future"]):
        conflict = await site.failure(*wishes)
        assert (conflict.reason, conflict.retryable) == ("PackageConflict", False), wishes
        assert conflict.last_lines
    assert any("__glibc" in line for line in (await site.failure("future")).last_lines)


async def test_a_channel_that_is_not_there_is_told_from_one_that_does_not_answer(site: CondaSite) -> None:
    nothing = f"https://127.0.0.1:{site.channel.port}/nothing"
    absent = await site.failure("oracle", channel=nothing)
    assert (absent.reason, absent.retryable) == ("PackageNotFound", False)
    assert nothing in absent.message
    site.channel.deaf = True
    deaf = await site.failure("oracle", no_cache=True)
    assert (deaf.reason, deaf.retryable) == ("PackageIndexUnreachable", True)


@pytest.mark.parametrize("held", ["repodata.json", "oracle-1.0-0.tar.bz2"])
async def test_a_cancel_while_packages_are_resolved_or_fetched_leaves_nothing(site: CondaSite, held: str) -> None:
    # Of another content each time, so that it has to be fetched.
    site.channel.packages = [CondaPackage("oracle", "1.0", files={"share/oracle": held})]
    site.channel.held.add(held)
    building = asyncio.create_task(site.build("cancelled", "oracle ==1.0", no_cache=True))
    await until(lambda: site.channel.asked[held] > 0, seconds=60)
    building.cancel()
    await asyncio.wait([building])
    assert building.cancelled()
    assert site.workshop.leftovers() == []


async def test_a_package_that_names_files_of_this_machine_is_refused(site: CondaSite) -> None:
    site.channel.packages = [CondaPackage("evil", "1.0", files={"share/passwd": "-> /etc/passwd"}), *EVIL]
    await site.build("link", "evil")
    assert site.files("x86-cpu", "link") == {}
    for package in EVIL:
        failure = await site.failure(package.name)
        assert (failure.reason, failure.retryable) == ("PackageUnusable", False)
        assert package.name in failure.message, failure.message
    site.channel.packages = [CondaPackage("lying", "1.0", more={"sha256": "0" * 64})]
    lying = await site.failure("lying")
    assert (lying.reason, lying.retryable) == ("PackageUnusable", False)
    assert "another digest" in lying.message
