"""`longshore-controller builder` edits the builder hosts in controller.yml."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from controller.admin import app
from controller.settings import Broker, Builds, Endpoint, Registry, Settings, load_settings, save_settings

URL = "ssh://builder@192.168.1.20/run/podman/podman.sock"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    endpoint = Endpoint(listen="0.0.0.0:7443", address="localhost:7443")
    settings = Settings(
        public=endpoint, agents=endpoint, web=endpoint, broker=Broker(address="localhost:8883"),
        registry=Registry(address="localhost:7446"), builds=Builds(parallel=3),
    )  # fmt: skip
    save_settings(tmp_path, settings)
    return tmp_path


def builder(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["builder", *arguments, "--data-dir", str(data)])


def test_a_host_is_added_changed_listed_and_removed(data: Path) -> None:
    assert builder(data, "add", "board", URL, "--slots", "4", "--ssh-key", "/etc/key").exit_code == 0
    (host,) = load_settings(data).builds.hosts
    assert (host.name, host.url, host.slots, host.ssh_key) == ("board", URL, 4, Path("/etc/key"))
    assert builder(data, "add", "board", URL, "--platform", "linux/arm64").exit_code == 0
    (host,) = load_settings(data).builds.hosts
    assert (host.slots, host.platforms) == (2, ("linux/arm64",))
    assert f"board  {URL}  2 at a time  linux/arm64" in builder(data, "list").output
    assert builder(data, "remove", "board").exit_code == 0
    builds = load_settings(data).builds
    assert (builds.hosts, builds.parallel) == ((), 3)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("local", URL), ("Board", URL), ("board", "tcp://192.168.1.20:8080"), ("board", "ssh://192.168.1.20/socket"),
        ("board", "ssh://-oProxyCommand=x@host/socket"), ("board", "ssh://user@-host/socket"), ("board", "tls://host"),
        ("board", f"{URL}\n"),
    ],
)  # fmt: skip
def test_a_host_that_cannot_be_is_refused_and_the_settings_stay(data: Path, name: str, url: str) -> None:
    before = (data / "controller.yml").read_text()
    assert builder(data, "add", name, url).exit_code != 0
    assert (data / "controller.yml").read_text() == before


def test_an_unknown_host_is_refused_with_those_that_are_known(data: Path) -> None:
    builder(data, "add", "board", URL)
    for command in ("remove", "check"):
        assert "known: board" in str(builder(data, command, "bord").exception)


def test_a_controller_that_builds_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="there has to be a builder host"):
        Builds(local=False)
