"""What a bundle wants of the device's Debian packages: asked from dpkg, installed by apt-get where that is allowed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from baremetal_agent.virtualenv.packages import Packages
from edge_agent.runtime.backend import BackendError
from tests.support.debian_root import DebianRoot, debian_root

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs Debian's apt-get and dpkg")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[DebianRoot]:
    with debian_root(tmp_path) as made:
        yield made


async def refusal(packages: Packages, *wanted: str) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await packages.require("r/a", wanted)
    return caught.value


async def test_packages_that_are_lacking_are_named(root: DebianRoot) -> None:
    root.offer("longshore-one")
    error = await refusal(Packages(may_install=False), "longshore-one", "longshore-two")
    assert (error.reason, error.retryable) == ("MissingPackages", True)
    assert error.message.endswith("apt-get install longshore-one longshore-two")


async def test_packages_are_installed_where_that_is_allowed(root: DebianRoot) -> None:
    root.offer("longshore-one")
    await Packages(may_install=True).require("r/a", ["longshore-one"])
    assert (root.root / "usr/share/longshore-one/file").exists()
    await Packages(may_install=False).require("r/a", ["longshore-one", "longshore-one=1.0"])
    error = await refusal(Packages(may_install=False), "longshore-one=2.0")
    assert error.reason == "MissingPackages"


async def test_package_that_nobody_has_is_told_with_what_apt_says(root: DebianRoot) -> None:
    error = await refusal(Packages(may_install=True), "longshore-nowhere")
    assert (error.reason, error.retryable) == ("PackagesNotInstalled", True)
    assert "Unable to locate package longshore-nowhere" in error.message


async def test_nothing_is_asked_for_a_bundle_without_such_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    await Packages(may_install=False).require("r/a", [])
    error = await refusal(Packages(may_install=True), "libgomp1")
    assert error.reason == "MissingPackages"
    assert "dpkg-query fails" in error.message
