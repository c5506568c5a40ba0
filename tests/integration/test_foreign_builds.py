"""Images for another architecture, built here."""

import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.builds import emulation, prepare_base
from controller.builds.bootstrap import Bootstrapper, Recipe
from controller.builds.bootstrap_archive import write_archive
from controller.builds.debian.tree import Tree
from controller.builds.emulation import check_runnable, own_architecture
from controller.builds.host import read
from controller.builds.log import BuildLog
from controller.builds.model import BuildFailed, BuildResult, TargetJob
from controller.builds.podman import Podman
from controller.builds.prepare_base import BaseFiles, read_base
from controller.builds.prepare_wheels import WheelsTool, lay_out
from controller.builds.recovery import close
from controller.builds.requirements import Requirements
from controller.builds.settings import BuilderSettings
from controller.builds.targets import load_profiles
from tests.support.building import SMALL_BASE, Workshop, open_workshop

pytestmark = [
    pytest.mark.podman, pytest.mark.xdist_group("builder"),
    pytest.mark.skipif(own_architecture() != "amd64", reason="takes arm64 for a foreign architecture"),
]  # fmt: skip

ARM, OWN = load_profiles()["arm64-cpu"], load_profiles()["x86-cpu"]
EM_AARCH64 = 183
# Hashes of all files below a folder, by path.
LISTING = """
import hashlib, json, os, sys
found = {}
for above, folders, files in os.walk("/opt/venv"):
    for name in files + [one for one in folders if os.path.islink(os.path.join(above, one))]:
        path = os.path.join(above, name)
        link = os.path.islink(path)
        found[path] = os.readlink(path) if link else hashlib.sha256(open(path, "rb").read()).hexdigest()
print(json.dumps(found))
"""


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path) as opened:
        yield opened


@pytest.fixture
def no_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may ask for one, whatever this machine has."""
    monkeypatch.setattr(emulation, "BINFMT", tmp_path / "nothing")


def needs_emulator() -> None:
    try:
        check_runnable(ARM)
    except BuildFailed as failure:
        pytest.skip(failure.message)


async def build(workshop: Workshop, job: TargetJob) -> BuildResult:
    return await workshop.builder.build(job, lambda *line: workshop.lines.append(line), workshop.states.append)


def run(workshop: Workshop, image: str, *command: str) -> str:
    options = ("--rm", "--user", "0", "--network", "host", "--pids-limit", "0", "--no-hosts")
    return workshop.podman("run", *options, image, *command)


def image_of(job: TargetJob) -> str:
    return f"localhost/longshore/build/{job.profile}:{job.build_id}"


@pytest.mark.usefixtures("no_emulator")
async def test_packages_of_both_kinds_come_without_emulation(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"packages": {"apt": ["libgomp1"], "pypi": ["markupsafe==3.0.2"]}, "volumes": ["/data"]}
    job = workshop.job("foreign", spec, [await workshop.upload("server.py", b"pass\n")], profile="arm64-cpu")
    result = await build(workshop, job)
    steps = [line for line in workshop.output() if line.startswith("STEP ")]
    assert [line for line in steps if " RUN " in line] == []
    assert [note for note in result.notes if "emulated" in note] == []
    assert [note for note in result.notes if note.startswith("laid out by a builder of another architecture")]
    mounted = Path(workshop.podman("image", "mount", image_of(job)).strip())
    try:
        (module,) = (mounted / "opt/venv/lib/python3.11/site-packages/markupsafe").glob("_speedups*.so")
        assert struct.unpack_from("<H", module.read_bytes(), 18) == (EM_AARCH64,)
        assert (mounted / "opt/venv/lib/python3.11/site-packages/markupsafe/__pycache__").is_dir()
        assert (mounted / "data").stat().st_uid == (mounted / "app").stat().st_uid == 1000
        paragraphs = (mounted / "var/lib/dpkg/status").read_text().split("\n\n")
        assert any("Package: libgomp1\nStatus: install ok installed" in paragraph for paragraph in paragraphs)
    finally:
        workshop.podman("image", "unmount", image_of(job))
    monkeypatch.undo()
    needs_emulator()
    asked = (
        "dpkg --audit; ldconfig -p | grep -o libgomp.so.1 | uniq; id -un 1000; python -c 'import markupsafe._speedups'"
    )
    assert run(workshop, image_of(job), "sh", "-ec", asked).split() == ["libgomp.so.1", "app"]


@pytest.mark.usefixtures("no_emulator")
async def test_what_needs_emulation_is_named_where_there_is_none(workshop: Workshop) -> None:
    spec = {"steps": ["true"], "packages": {"pypi": ["docopt==0.6.2"], "apt": ["cron"]}, "allow_root": True}
    with pytest.raises(BuildFailed) as caught:
        await build(workshop, workshop.job("emulated", spec, profile="arm64-cpu"))
    assert caught.value.reason == "EmulationUnavailable"
    (said,) = [line for line in workshop.output() if line.startswith("emulated for linux/arm64: ")]
    for cause in (
        "the step of build.steps",
        "all Python packages, since the Python package docopt has no wheel for linux/arm64",
        "scripts of the apt packages cron",
        "installing sudo",
    ):
        assert cause in said
        assert cause in caught.value.message
    assert workshop.leftovers() == []


async def test_packages_that_cannot_be_had_fail_as_in_a_step(workshop: Workshop) -> None:
    wishes = {
        "PackageNotFound": [{"pypi": ["markupsafe==99"]}, {"apt": ["longshore-no-such-package"]}],
        "PackageConflict": [{"pypi": ["numpy==1.26.4", "numpy>2"]}],
    }
    for reason, packages in ((reason, one) for reason, several in wishes.items() for one in several):
        with pytest.raises(BuildFailed) as caught:
            await build(workshop, workshop.job("failing", {"packages": packages}, profile="arm64-cpu"))
        assert caught.value.reason == reason, packages
        assert caught.value.last_lines
        assert workshop.leftovers() == []


async def test_an_environment_made_outside_is_the_one_that_a_step_makes(workshop: Workshop) -> None:
    wishes = ["flask==3.1.0"]
    job = workshop.job("inside", {"packages": {"pypi": wishes}})
    await build(workshop, job)
    inside = json.loads(run(workshop, image_of(job), "python3", "-c", LISTING))
    scratch = workshop.folder / "scratch"
    (scratch / "base").mkdir(parents=True)
    podman, settings = workshop.builder.podman, BuilderSettings()
    base = await read_base(podman, base_of(workshop), scratch / "base")
    tool = WheelsTool(podman, settings, await read(settings), OWN)
    log = BuildLog(lambda *_: None)
    reason, notes = await lay_out(tool, base, Requirements(pypi=tuple(wishes)), scratch / "venv.tar", scratch, log)
    assert (reason, notes) == ("", ())
    (scratch / "Containerfile").write_text(f"FROM {base_of(workshop)}\nADD venv.tar /\n")
    workshop.podman("build", "-q", "--tag", "localhost/outside", str(scratch))
    outside = json.loads(run(workshop, "localhost/outside", "python3", "-c", LISTING))
    assert inside.keys() == outside.keys()
    different = {path for path in inside if inside[path] != outside[path]}
    # Of another patch version of Python, and as it happened in memory: byte code may differ in its references.
    assert {path for path in different if not path.endswith(".pyc")} == set()


async def test_links_of_a_base_lead_to_no_file_of_this_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "passwd").write_text("root:x:0:0:of this machine:/:/bin/sh\n")
    tree = Tree()
    tree.symlink("/etc", str(secret))
    tree.write("/var/lib/dpkg/status", "Package: x\n")
    found = await read_tree(tree, tmp_path)
    assert found.texts == {"/var/lib/dpkg/status": b"Package: x\n"}


@pytest.mark.parametrize(("limit", "what"), [("MAX_FILES", "records of packages"), ("MAX_PATHS", "paths")])
async def test_a_base_whose_records_never_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, what: str
) -> None:
    tree = Tree()
    tree.write("/etc/apt/preferences", bytes(2 * 2**20))
    for number in range(5000):
        tree.write(f"/srv/{number:0>250}", b"")
    monkeypatch.setattr(prepare_base, limit, 2**20)
    with pytest.raises(BuildFailed, match=f"the {what} .* more than 1 MiB") as caught:
        await read_tree(tree, tmp_path)
    assert (caught.value.reason, caught.value.retryable) == ("BaseTooLarge", False)


async def read_tree(tree: Tree, folder: Path) -> BaseFiles:
    """As of a base that has nothing else."""
    tree.write_tar(folder / "layer.tar")
    write_archive(folder / "layer.tar", folder / "image.tar", "arm64", "a test")
    podman = Podman(folder / "builder")
    podman.prepare()
    loaded = await podman.run("load", "-q", "-i", str(folder / "image.tar"))
    scratch = folder / "scratch"
    scratch.mkdir()
    try:
        return await read_base(podman, loaded.stdout.strip().rpartition(":")[2], scratch)
    finally:
        close(podman)


def base_of(workshop: Workshop) -> str:
    names = workshop.podman("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    return next(name for name in names if "/longshore/base/" in name)


async def test_an_archive_is_the_same_image_in_every_storage(tmp_path: Path) -> None:
    tree = Tree()
    tree.write("/etc/hello", "hello\n")
    ids = set()
    for name in ("one", "two"):
        podman = Podman(tmp_path / name)
        podman.prepare()
        tree.write_tar(tmp_path / f"{name}.tar")
        write_archive(tmp_path / f"{name}.tar", tmp_path / f"{name}-image.tar", "arm", "a test")
        loaded = await podman.run("load", "-q", "-i", str(tmp_path / f"{name}-image.tar"))
        image = loaded.stdout.strip().rpartition(" ")[2]
        form = "{{.Id}} {{.Digest}} {{.Os}}/{{.Architecture}}"
        ids.add((await podman.run("image", "inspect", "--format", form, image)).stdout.strip())
        close(podman)
    assert len(ids) == 1
    assert ids.pop().endswith(" linux/arm")


@pytest.mark.slow
async def test_two_machines_make_the_same_base(tmp_path: Path) -> None:
    recipe = Recipe(name="small", stands_for=(), suite="bookworm", include=())
    ids = set()
    for name in ("one", "two"):
        podman = Podman(tmp_path / name)
        podman.prepare()
        ids.add(await Bootstrapper(podman, tmp_path / f"{name}-cache").image_id(recipe, "arm64", lambda *_: None))
        close(podman)
    assert len(ids) == 1


@pytest.mark.slow
async def test_scripts_that_matter_are_run_by_emulation_and_leave_nothing_half_done(workshop: Workshop) -> None:
    needs_emulator()
    # It makes a group, and gives it a program and a folder.
    asked = (
        "dpkg --audit; dpkg-query -W -f '${db:Status-Status}\\n' cron; grep ^crontab: /etc/group | cut -d: -f1; "
        "stat -c '%n %U:%G %a' /usr/bin/crontab /var/spool/cron/crontabs; find /etc /var/lib/dpkg -name '*.dpkg-new'; "
        "dpkg --verify cron; ls /var/lib/dpkg/updates"
    )
    said = []
    for profile in ("arm64-cpu", "x86-cpu"):
        job = workshop.job("configured", {"base": SMALL_BASE, "packages": {"apt": ["cron"]}}, profile=profile)
        result = await build(workshop, job)
        foreign = [
            note for note in result.notes if "emulated for linux/arm64: scripts of the apt packages cron" in note
        ]
        assert len(foreign) == (profile == "arm64-cpu")
        said.append(run(workshop, image_of(job), "sh", "-ec", asked))
    assert said[0].split()[:2] == ["installed", "crontab"]
    # As it is where nothing is emulated.
    assert said[0] == said[1]


@pytest.mark.slow
async def test_the_digits_example_runs_where_its_architecture_is_emulated(workshop: Workshop) -> None:
    needs_emulator()
    spec = {"packages": {"pypi": ["onnxruntime>=1.17,<2", "numpy>=1.26,<3"]}, "steps": ["python -c 'import numpy'"]}
    job = workshop.job("digits", spec, profile="arm64-cpu")
    result = await build(workshop, job)
    assert [note for note in result.notes if "emulated for linux/arm64: the step of build.steps" in note]
    # What this machine's kernel tells of its processors is of another architecture, which onnxruntime dies of.
    masked = ("--security-opt", "mask=/sys/devices/system/cpu")
    code = "import numpy, onnxruntime; print(numpy.ones(3).sum(), len(onnxruntime.get_available_providers()) > 0)"
    options = ("--rm", "--network", "host", "--pids-limit", "0", "--no-hosts", *masked)
    assert workshop.podman("run", *options, image_of(job), "python", "-c", code).split()[:2] == ["3.0", "True"]
