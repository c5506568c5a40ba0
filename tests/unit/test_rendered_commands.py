"""The commands of package steps, run by a real shell on stand-ins of the programs that they call.

They run with a PATH that has nothing but the stand-ins, and on paths of the test: what they remove is not there.
"""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from controller.rendering import ImagePlan, render
from tests.support.containerfile import parse

PLAN = ImagePlan(base="base", workdir="/app", labels=(("a", "b"),))


class Step:
    """One RUN of a plan, and the machine on which it runs."""

    def __init__(self, folder: Path, plan: ImagePlan, kind: str) -> None:
        self.said = folder / "said"
        self._programs = folder / "programs"
        self._programs.mkdir()
        listed = plan.package_lists()[kind]
        (folder / "run").mkdir()
        self.list = folder / "run" / "longshore-packages"
        self.list.write_text(listed.text)
        step = next(one for one in parse(render(plan)) if listed.digest in one.text)
        self._folder = folder
        self._command = self._here(step.command())
        (folder / "dev/longshore").mkdir(parents=True)
        for name, script in plan.scripts().items():
            assert script.digest in step.text
            (folder / "dev/longshore" / name).write_text(self._here(script.text))
        self.install("rm", "mkdir")
        self.install_real("cat")

    def _here(self, command: str) -> str:
        return re.sub(r"(?<![\w.}-])/(run|dev/longshore|var|opt|tmp|bin|usr)/", rf"{self._folder}/\1/", command)

    def install(self, *names: str, saying: str = "") -> None:
        for name in names:
            program = self._programs / name
            program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"{name} $*\" >> '{self.said}'\necho '{saying}'\n")
            program.chmod(0o755)

    def run(self) -> subprocess.CompletedProcess[str]:
        argv = ["/bin/sh", "-c", self._command]
        return subprocess.run(argv, env={"PATH": str(self._programs)}, capture_output=True, text=True, check=False)

    def calls(self, name: str) -> list[list[str]]:
        """The words with which a program was called, each time."""
        lines = self.said.read_text().splitlines() if self.said.exists() else []
        return [line.split()[1:] for line in lines if line.split()[0] == name]

    def install_real(self, name: str) -> None:
        found = shutil.which(name)
        assert found
        (self._programs / name).symlink_to(found)


def last_words(calls: list[list[str]], count: int) -> list[str]:
    return calls[-1][-count:]


def test_apt_installs_exactly_the_listed_names(tmp_path: Path) -> None:
    step = Step(tmp_path, replace(PLAN, apt=("libgomp1", "g++=4:12.2.0-3", "lib.1+x")), "apt")
    step.install("apt-get")
    done = step.run()
    assert done.returncode == 0, done.stderr
    update, install = step.calls("apt-get")
    assert update[-1] == "update"
    assert install[install.index("install") :] == [
        "install", "-y", "--no-install-recommends", "--", "libgomp1", "g++=4:12.2.0-3", "lib.1+x",
    ]  # fmt: skip


def test_dnf_installs_exactly_the_listed_names(tmp_path: Path) -> None:
    step = Step(tmp_path, replace(PLAN, dnf=("libgomp", "gcc-c++")), "dnf")
    step.install("dnf")
    done = step.run()
    assert done.returncode == 0, done.stderr
    assert step.calls("dnf")[-1][:2] == ["install", "-y"]
    assert last_words(step.calls("dnf"), 2) == ["libgomp", "gcc-c++"]


def test_the_small_dnf_of_small_bases_does_too(tmp_path: Path) -> None:
    step = Step(tmp_path, replace(PLAN, dnf=("libgomp",)), "dnf")
    step.install("microdnf")
    assert step.run().returncode == 0
    assert last_words(step.calls("microdnf"), 1) == ["libgomp"]


def test_apk_installs_exactly_the_listed_names(tmp_path: Path) -> None:
    step = Step(tmp_path, replace(PLAN, apk=("libgomp", "g++>=13")), "apk")
    step.install("apk")
    done = step.run()
    assert done.returncode == 0, done.stderr
    (added,) = step.calls("apk")
    assert added[0] == "add"
    # A version with < or > is a word, and no redirection.
    assert added[-2:] == ["libgomp", "g++>=13"]


@pytest.mark.parametrize(
    ("version", "folders"), [("dnf5 version 5.2.6.0", ["cachedir", "system_cachedir"]), ("4.14.0", ["cachedir"])]
)
def test_dnf_keeps_what_it_fetches_in_the_cache_whatever_its_version(
    tmp_path: Path, version: str, folders: list[str]
) -> None:
    step = Step(tmp_path, replace(PLAN, dnf=("libgomp",)), "dnf")
    step.install("dnf", saying=version)
    step.run()
    cache = tmp_path / "var/cache/longshore"
    assert [f"--setopt={folder}={cache}" for folder in folders] == [
        word for word in step.calls("dnf")[-1] if "cachedir" in word
    ]


def test_ten_thousand_names_reach_apt_in_one_call(tmp_path: Path) -> None:
    names = tuple(f"package-number-{number}" for number in range(10_000))
    step = Step(tmp_path, replace(PLAN, apt=names), "apt")
    step.install("apt-get")
    done = step.run()
    assert done.returncode == 0, done.stderr
    assert tuple(last_words(step.calls("apt-get"), 10_000)) == names


@pytest.mark.parametrize(
    ("asked", "there", "hint"),
    [
        ("apt", "apk", "packages.apk"),
        ("apt", "microdnf", "packages.dnf"),
        ("apk", "apt-get", "packages.apt"),
        ("dnf", "", "packages.pypi"),
    ],
)
def test_a_base_with_another_package_manager_is_said_so(tmp_path: Path, asked: str, there: str, hint: str) -> None:
    step = Step(tmp_path, replace(PLAN, **{asked: ("libgomp1",)}), asked)  # type: ignore[arg-type]
    step.install(*([there] if there else []))
    done = step.run()
    assert done.returncode == 1
    assert done.stderr.startswith("longshore: the base image has no ")
    assert hint in done.stderr


def test_uv_reads_the_list_as_requirements(tmp_path: Path) -> None:
    plan = replace(PLAN, pypi=("numpy>=1.26,<3", "uvicorn[standard]"), pypi_indexes=("https://pypi.example/simple",))
    step = Step(tmp_path, plan, "pypi")
    step.install("python3")
    uv = tmp_path / "dev" / "longshore" / "uv"
    uv.write_text(f"#!/bin/sh\nprintf '%s\\n' \"uv $*\" >> '{step.said}'\n")
    uv.chmod(0o755)
    done = step.run()
    assert done.returncode == 0, done.stderr
    version, venv, install = step.calls("uv")
    assert (version, venv[0], install[:2]) == (["--version"], "venv", ["pip", "install"])
    assert install[-2:] == ["-r", str(step.list)]
    assert step.list.read_text().splitlines() == [
        "--extra-index-url https://pypi.example/simple", "numpy>=1.26,<3", "uvicorn[standard]",
    ]  # fmt: skip


@pytest.mark.parametrize("tool", ["apt-get", "dnf", "microdnf", "apk"])
def test_a_base_without_python_gets_that_of_its_distribution(tmp_path: Path, tool: str) -> None:
    step = Step(tmp_path, replace(PLAN, pypi=("numpy",)), "pypi")
    step.install(tool)
    step.run()
    # Without uv at hand it is made with pip, which Debian has in another package.
    assert ["python3" in call[-2:] for call in step.calls(tool)].count(True) == 1


def test_a_base_that_can_have_no_python_is_said_so(tmp_path: Path) -> None:
    step = Step(tmp_path, replace(PLAN, pypi=("numpy",)), "pypi")
    done = step.run()
    assert done.returncode == 1
    assert done.stderr.startswith("longshore: the base image has no python3, and no package manager")


def test_scripts_of_conda_packages_run_in_order_and_know_what_they_are(tmp_path: Path) -> None:
    plan = replace(PLAN, conda=("qt",), conda_channels=("a",), conda_scripts=("glib 2.80 1", "qt 6.8.1 2"))
    step = Step(tmp_path, plan, "conda_scripts")
    step.install_real("sh")
    (tmp_path / "opt/conda/bin").mkdir(parents=True)
    for name in ("glib", "qt"):
        text = f'echo "ran $PKG_NAME $PKG_VERSION $PKG_BUILDNUM $PREFIX" >> "{step.said}"\ncat\n'
        (tmp_path / f"opt/conda/bin/.{name}-post-link.sh").write_text(text)
    done = step.run()
    assert done.returncode == 0, done.stderr
    assert [call[:3] for call in step.calls("ran")] == [["glib", "2.80", "1"], ["qt", "6.8.1", "2"]]


def test_a_script_of_a_conda_package_that_fails_fails_the_step(tmp_path: Path) -> None:
    step = Step(
        tmp_path, replace(PLAN, conda=("qt",), conda_channels=("a",), conda_scripts=("qt 1 0",)), "conda_scripts"
    )
    step.install_real("sh")
    (tmp_path / "opt/conda/bin").mkdir(parents=True)
    (tmp_path / "opt/conda/bin/.qt-post-link.sh").write_text("exit 7\n")
    assert step.run().returncode == 7


@pytest.mark.parametrize("kind", ["apt", "dnf", "apk"])
def test_a_list_that_cannot_be_read_fails_the_step(tmp_path: Path, kind: str) -> None:
    step = Step(tmp_path, replace(PLAN, **{kind: ("libgomp1",)}), kind)  # type: ignore[arg-type]
    tool = {"apt": "apt-get"}.get(kind, kind)
    step.install(tool)
    step.list.unlink()
    assert step.run().returncode != 0
    assert step.calls(tool) == []
