"""Bills of materials of images in a real Podman storage, kept nowhere mounted and attached in a real registry."""

import asyncio
import json
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from controller.builds.log import BuildLog
from controller.builds.materials import image_materials
from controller.builds.materials_image import CannotRead, image_root
from controller.builds.materials_reading import installed_packages
from controller.builds.materials_rpm import rpm_listing
from controller.builds.model import BuildFailed
from controller.builds.podman import Podman
from tests.support.async_waiting import until
from tests.support.building import Workshop, open_workshop
from tests.support.image_roots import PURLS, make_root
from tests.support.tiny_images import busybox

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module")]


class WithoutMounting(Podman):
    """As it is without root, or on another machine."""

    def layers(self, image_id: str) -> tuple[Path, ...]:
        return ()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workshop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path_factory.mktemp("materials")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def image(workshop: Workshop) -> str:
    archive = workshop.folder / "root.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(make_root(workshop.folder / "root"), arcname=".")
    imported = await asyncio.to_thread(workshop.podman, "import", "-q", str(archive))
    return imported.strip().removeprefix("sha256:")


def purls(materials: bytes) -> list[str]:
    return [part["purl"] for part in json.loads(materials)["components"] if "purl" in part]


@pytest.mark.parametrize("kind", [Podman, WithoutMounting])
async def test_what_is_inside_an_image_is_read_and_nothing_is_left(
    workshop: Workshop, image: str, kind: type[Podman]
) -> None:
    lines: list[str] = []
    podman = kind(workshop.builder.podman.folder)
    log = BuildLog(lambda _, text: lines.append(text))
    job = workshop.job("b-1", {})
    several = await asyncio.gather(*(image_materials(podman, image, job, log) for _ in range(3)))
    assert purls(several[0]) == PURLS
    assert several[0] == several[1] == several[2]
    assert lines[0] == "contains packages: 2 apk, 1 conda, 2 deb, 2 pypi"
    assert workshop.leftovers() == []


@pytest.mark.parametrize("kind", [Podman, WithoutMounting])
async def test_a_cancel_while_an_image_is_read_leaves_nothing(
    workshop: Workshop, image: str, kind: type[Podman]
) -> None:
    podman = kind(workshop.builder.podman.folder)
    log = BuildLog(lambda *_: None)
    for delay in (0.0, 0.05, 0.1, 0.2, 0.4):
        reading = asyncio.create_task(image_materials(podman, image, workshop.job("b-1", {}), log))
        await asyncio.sleep(delay)
        reading.cancel()
        await asyncio.wait([reading])
    assert workshop.leftovers() == []


async def test_an_image_that_a_killed_controller_was_reading_is_not_mounted_after_its_restart(
    workshop: Workshop,
) -> None:
    async with image_root(workshop.builder.podman, await image_of_two_layers(workshop)) as root:
        assert root.is_mount()
        await workshop.builder.recover()
        assert workshop.leftovers() == []


async def test_what_a_later_layer_changed_is_read_as_it_is_now(workshop: Workshop) -> None:
    async with image_root(workshop.builder.podman, await image_of_two_layers(workshop)) as root:
        assert root.is_mount()
        assert [package.name for package in installed_packages(root)] == ["new"]
        assert (root / "etc/os-release").read_text() == "ID=fedora\n"
    assert workshop.leftovers() == []


async def test_an_image_of_one_layer_is_read_where_it_lies(workshop: Workshop, image: str) -> None:
    async with image_root(workshop.builder.podman, image) as root:
        assert root.is_relative_to(workshop.builder.podman.storage)
        assert workshop.leftovers() == []


async def image_of_two_layers(workshop: Workshop) -> str:
    """The upper one has another package in the place of that of the lower one."""
    below = await image_with_rpm(workshop, "", "Package: old\nVersion: 1\nStatus: install ok installed\n")
    folder = Path(tempfile.mkdtemp(dir=workshop.folder))
    described = "Package: new\\nVersion: 2\\nStatus: install ok installed\\n"
    step = f"printf '{described}' >/var/lib/dpkg/status; : >/var/lib/rpm/rpmdb.sqlite"
    (folder / "Containerfile").write_text(f"FROM {below}\nRUN {step}\n")
    made = await asyncio.to_thread(workshop.podman, "build", "-q", "--network", "none", "--layers", str(folder))
    return made.strip()


async def image_with_rpm(workshop: Workshop, script: str, debian: str = "") -> str:
    """Its id. The script is in the place of rpm, which needs a whole distribution; `debian`: the status of dpkg."""
    root = Path(tempfile.mkdtemp(prefix="rpm-", dir=workshop.folder))
    for name in ("bin", "var/lib/rpm", "var/lib/dpkg", "etc", "proc", "sys", "dev", "tmp", "run"):
        (root / name).mkdir(parents=True)
    (root / "bin/sh").write_bytes(await asyncio.to_thread(busybox))
    (root / "bin/rpm").write_text(f"#!/bin/sh\n{script}\n")
    (root / "var/lib/rpm/rpmdb.sqlite").write_bytes(b"SQLite format 3")
    (root / "etc/os-release").write_text("ID=fedora\n")
    (root / "var/lib/dpkg/status").write_text(debian)
    for program in ("sh", "rpm"):
        (root / "bin" / program).chmod(0o755)
    archive = root.with_suffix(".tar")
    with tarfile.open(archive, "w") as tar:
        tar.add(root, arcname=".")
    imported = await asyncio.to_thread(workshop.podman, "import", "-q", str(archive))
    return imported.strip().removeprefix("sha256:")


async def test_rpm_is_asked_for_its_packages_by_the_images_own_program(workshop: Workshop) -> None:
    made = await image_with_rpm(workshop, "[ \"$1 $2\" = '-qa --qf' ] && printf 'bash\\t5.2-3.fc40\\tx86_64\\tGPL\\n'")
    materials = await image_materials(workshop.builder.podman, made, workshop.job("b-1", {}), BuildLog(lambda *_: None))
    assert purls(materials) == ["pkg:rpm/fedora/bash@5.2-3.fc40?arch=x86_64"]
    assert workshop.leftovers() == []


# Neither heeds a TERM.
@pytest.mark.parametrize(
    ("script", "failure", "why"),
    [
        ("trap '' TERM; while :; do echo package; done", BuildFailed, "prints more than 100000 bytes"),
        ("trap '' TERM; while :; do sleep 1; done", CannotRead, "within 3 s"),
    ],
)
async def test_an_rpm_that_lists_without_end_is_ended_and_nothing_of_it_is_left(
    workshop: Workshop, script: str, failure: type[Exception], why: str
) -> None:
    made = await image_with_rpm(workshop, script)
    with pytest.raises(failure, match=why):
        await rpm_listing(workshop.builder.podman, made, largest=100_000, deadline=30 if failure is BuildFailed else 3)
    assert workshop.leftovers() == []


async def test_a_cancel_while_rpm_lists_leaves_nothing(workshop: Workshop) -> None:
    made = await image_with_rpm(workshop, "trap '' TERM; while :; do sleep 1; done")
    listing = asyncio.create_task(rpm_listing(workshop.builder.podman, made))
    await until(lambda: len(workshop.containers()) == 1, seconds=30)
    listing.cancel()
    await asyncio.wait([listing])
    assert listing.cancelled()
    assert workshop.leftovers() == []
