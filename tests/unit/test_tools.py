"""What the Makefile's commands say on machines that lack something, tried with stand-ins for the system's programs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("bash", "dirname", "cat", "find", "mkdir", "rm", "tee", "tail", "timeout", "touch", "chmod")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder that is the whole PATH of what is started: a shell's usual programs and this Python."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in NEEDED:
        (folder / name).symlink_to(str(shutil.which(name)))
    (folder / "python3").symlink_to(sys.executable)
    return folder


def stub(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
    (folder / name).chmod(0o755)


def run(tool: str, programs: Path) -> subprocess.CompletedProcess[str]:
    """Runs a copy of the tool, which takes the folder above its own for the repository."""
    tools = programs.parent / "tools"
    tools.mkdir(exist_ok=True)
    shutil.copy(ROOT / "tools" / tool, tools)
    return subprocess.run(
        [programs / "bash", tools / tool], env={"PATH": str(programs)}, capture_output=True, text=True, check=False
    )


def test_set_up_without_the_right_to_install_says_what_to_install(programs: Path) -> None:
    stub(programs, "id", "echo 1000")
    stub(programs, "sudo", "exit 1")
    stub(programs, "dpkg-query", '[ "${@: -1}" = podman ] || echo installed')
    done = run("setup.sh", programs)
    assert done.returncode == 1
    assert done.stderr == ("setup: these packages are missing; please install them: apt-get install podman\n")


def test_set_up_on_another_distribution_says_what_to_install(programs: Path) -> None:
    done = run("setup.sh", programs)
    assert done.returncode == 1
    assert done.stderr.startswith("setup: this is not Debian or Ubuntu; please install: podman buildah ")


def test_grpcurl_is_fetched_where_go_is(programs: Path) -> None:
    stub(programs, "go", 'touch "$GOBIN/grpcurl"; chmod 755 "$GOBIN/grpcurl"; echo "$@" >>calls')
    for _ in range(2):
        assert run("grpcurl.sh", programs).returncode == 0
    assert os.access(programs.parent / ".tools/bin/grpcurl", os.X_OK)
    assert (programs.parent / "calls").read_text() == "install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest\n"


def test_set_up_goes_on_without_grpcurl_and_does_not_try_again_at_once(programs: Path) -> None:
    stub(programs, "go", "echo 'dial tcp: no such host' >&2; exit 1")
    first, second = run("grpcurl.sh", programs), run("grpcurl.sh", programs)
    assert first.returncode == second.returncode == 0
    assert "dial tcp: no such host\nsetup: grpcurl cannot be fetched now, and its tests are skipped" in first.stdout
    assert second.stdout == ""
    (programs / "go").unlink()
    assert run("grpcurl.sh", programs).stdout == ""


def pytest_without_podman(programs: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/e2e/test_leaving.py"]
    return subprocess.run(
        command, env={"PATH": str(programs), **env}, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_run_without_containers_says_so_at_its_end(programs: Path) -> None:
    done = pytest_without_podman(programs)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b[1-9]\d* tests with containers did not run; each needs the packages podman ", done.stdout)


def test_a_run_without_containers_is_an_error_in_ci(programs: Path) -> None:
    done = pytest_without_podman(programs, CI="true")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "CI lacks the packages podman " in done.stdout
