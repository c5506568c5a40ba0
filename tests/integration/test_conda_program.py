"""What the program that resolves conda packages makes of channels that it cannot use."""

from pathlib import Path

import pytest

from controller.builds.conda import program
from controller.builds.conda.model import Problem, Wish
from controller.builds.conda.program import answer
from controller.files import sync_below
from controller.local.process import free_port
from tests.support.conda_channel import CondaPackage, running_conda_channel


def wish(folder: Path, channel: str) -> Wish:
    return Wish(("oracle",), (channel,), "linux-64", (), str(folder / "cache"), str(folder / "scratch"))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


async def test_a_channel_that_is_not_trusted_may_be_had_later(tmp_path: Path) -> None:
    async with running_conda_channel(tmp_path / "channel", [CondaPackage("oracle", "1.0")]) as channel:
        found = await answer(wish(tmp_path, channel.url))
    assert found.problem is Problem.UNREACHABLE
    assert found.subject.endswith(": invalid peer certificate: UnknownIssuer")
    assert channel.url in found.subject


async def test_a_package_is_on_the_disk_before_it_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[list[str]] = []

    def sync(folder: Path) -> None:
        sync_below(folder)
        assert (folder / "share/oracle").read_text() == "42"
        kept.append([path.name for path in (tmp_path / "cache/packages").iterdir()])

    monkeypatch.setattr(program, "sync_below", sync)
    package = CondaPackage("oracle", "1.0", files={"share/oracle": "42"})
    async with running_conda_channel(tmp_path / "channel", [package]) as channel:
        monkeypatch.setenv("SSL_CERT_FILE", str(channel.ca_file))
        (tmp_path / "scratch").mkdir()
        found = await answer(wish(tmp_path, channel.url))
    assert found.problem is None
    assert kept == [[]]
    assert (found.packages[0].folder / "share/oracle").read_text() == "42"


async def test_a_channel_that_does_not_answer_is_told_by_what_hinders_it(tmp_path: Path) -> None:
    found = await answer(wish(tmp_path, f"https://127.0.0.1:{free_port()}/channel"))
    assert found.problem is Problem.UNREACHABLE
    assert "Connection refused" in found.subject
