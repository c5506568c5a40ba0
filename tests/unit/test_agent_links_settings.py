"""Settings of an agent: file, flags, and what is said about nonsense."""

from pathlib import Path

import pytest

from baremetal_agent.main import PROGRAM as BAREMETAL
from edge_agent.host.program import Program
from edge_agent.main import PROGRAM as EDGE
from edge_agent.runtime.settings import NOT_SET, AgentSettings, InvalidSettings, load_settings, write_template


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {}) == AgentSettings(state_dir=tmp_path)


@pytest.mark.parametrize("program", [EDGE, BAREMETAL], ids=lambda program: program.name)
def test_the_written_template_explains_every_setting_and_sets_none(tmp_path: Path, program: Program) -> None:
    own = {option.name: option.default for option in program.options}
    defaults = AgentSettings(state_dir=tmp_path, own=own)
    write_template(tmp_path, program.options)
    assert load_settings(tmp_path, {}, program.options) == defaults
    text = (tmp_path / "agent.toml").read_text()
    uncommented = "\n".join(line.removeprefix("#") for line in text.splitlines() if not line.startswith("# "))
    (tmp_path / "agent.toml").write_text(uncommented)
    assert load_settings(tmp_path, {}, program.options) == defaults
    names = {*own, *AgentSettings.__dataclass_fields__} - set(NOT_SET)
    assert all(f"#{name} = " in text for name in names)


def test_a_written_settings_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("poll_interval = 5\n")
    write_template(tmp_path)
    assert load_settings(tmp_path, {}).poll_interval == 5


def test_flags_win_over_the_file_and_absent_flags_do_not(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('poll_interval = 5\nadvertise_host = "edge.example"\n')
    settings = load_settings(tmp_path, {"poll_interval": 7.0, "advertise_host": None})
    assert settings.poll_interval == 7
    assert settings.advertise_host == "edge.example"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("poll_intervall = 5", "unknown setting 'poll_intervall'; known are advertise_host, poll_interval"),
        ('poll_interval = "often"', "poll_interval = 'often': expected a number of seconds"),
        ("poll_interval = true", "poll_interval = True: expected a number of seconds"),
        ("poll_interval = 0", "poll_interval = 0: expected at least 1 second"),
        ("resync_interval = -1.0", "resync_interval = -1.0: expected at least 1 second"),
        ("poll_interval = nan", "poll_interval = nan: expected at least 1 second"),
        ("log_level = 'loud'", "log_level = 'loud': expected one of debug, info, warning, error"),
        ("log_level = 3", "log_level = 3: expected a text in quotes"),
        ("advertise_host = 'a b'", "advertise_host = 'a b': expected a host name"),
        ("podman_url = '/run/podman'", "podman_url = '/run/podman': expected an address such as unix:///run"),
        ("podman_url = true", "podman_url = True: expected a text in quotes"),
        ("install_packages = true", "unknown setting 'install_packages'"),
        ("state_dir = '/'", "unknown setting 'state_dir'"),
        ("poll_interval = ", "cannot read"),
    ],
)
def test_nonsense_is_named_with_what_is_allowed_and_where_it_stands(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "agent.toml").write_text(text + "\n")
    with pytest.raises(InvalidSettings) as raised:
        load_settings(tmp_path, {}, EDGE.options)
    assert says in str(raised.value)
    assert str(tmp_path / "agent.toml") in str(raised.value)
