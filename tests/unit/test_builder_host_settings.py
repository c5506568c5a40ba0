"""Which settings of a machine a build step gets, and in which form."""

import subprocess
from pathlib import Path

import pytest

from controller.builds.host import write_secrets
from controller.builds.host_settings import (
    CA_PATH,
    ENV_SECRET,
    STEPS_ENV_SECRET,
    HostSettings,
    pip_config_files,
    read_host_settings,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    return path


def test_proxies_are_given_in_both_spellings(bundle: Path) -> None:
    settings = read_host_settings({"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "local"}, (), "", bundle)
    assert settings.environment["https_proxy"] == settings.environment["HTTPS_PROXY"] == "http://proxy:3128"
    assert settings.environment["NO_PROXY"] == "local"
    assert "http_proxy" not in settings.environment


def test_an_index_of_pip_is_used_by_uv_too(tmp_path: Path, bundle: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://a/simple\nextra-index-url =\n  https://b/simple\n  https://c/simple\n"
    )
    environment = read_host_settings({}, (config,), "", bundle).environment
    assert environment["PIP_INDEX_URL"] == environment["UV_DEFAULT_INDEX"] == "https://a/simple"
    assert environment["UV_INDEX"] == "https://b/simple https://c/simple"
    assert environment["UV_INDEX_STRATEGY"] == "unsafe-best-match"


def test_the_environment_wins_over_files_and_later_files_over_earlier(tmp_path: Path, bundle: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_text("[global]\nindex-url = https://first\ntimeout = 7\n")
    second.write_text("[install]\nindex-url = https://second\n")
    read = read_host_settings({}, (first, second), "", bundle).environment
    assert (read["PIP_INDEX_URL"], read["PIP_TIMEOUT"]) == ("https://second", "7")
    read = read_host_settings({"PIP_INDEX_URL": "https://mine"}, (first, second), "", bundle).environment
    assert read["UV_DEFAULT_INDEX"] == "https://mine"


def test_both_names_of_pips_timeout_are_known(bundle: Path) -> None:
    assert read_host_settings({"PIP_DEFAULT_TIMEOUT": "99"}, (), "", bundle).environment["UV_HTTP_TIMEOUT"] == "99"
    both = {"PIP_DEFAULT_TIMEOUT": "99", "PIP_TIMEOUT": "7"}
    assert read_host_settings(both, (), "", bundle).environment["UV_HTTP_TIMEOUT"] == "7"


def test_a_broken_or_absent_file_of_pip_is_no_obstacle(tmp_path: Path, bundle: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("index-url = without a section")
    assert "PIP_INDEX_URL" not in read_host_settings({}, (broken, tmp_path / "absent"), "", bundle).environment


def test_pip_is_told_where_to_look_by_its_own_rules() -> None:
    files = pip_config_files({"HOME": "/home/me", "PIP_CONFIG_FILE": "/own"})
    assert files.index(Path("/etc/pip.conf")) < files.index(Path("/home/me/.config/pip/pip.conf")) < len(files) - 1
    assert files[-1] == Path("/own")
    assert pip_config_files({"PIP_CONFIG_FILE": "/dev/null"}) == ()


def test_of_apt_only_what_holds_in_a_container_is_taken(bundle: Path) -> None:
    dump = 'Acquire "";\nAcquire::http::Proxy "http://p:3128";\nAcquire::Check-Date "false";\n'
    dump += 'Acquire::https::CAInfo "/x";\n'
    config = read_host_settings({}, (), dump + 'Dir::Etc "/etc";\n', bundle).apt_config
    assert config.splitlines() == [
        'Acquire::http::Proxy "http://p:3128";', 'Acquire::Check-Date "false";', f'Acquire::https::CAInfo "{CA_PATH}";',
    ]  # fmt: skip


def test_the_bundle_of_the_machine_is_found_by_its_variable(bundle: Path) -> None:
    settings = read_host_settings({"SSL_CERT_FILE": str(bundle)}, (), "", None)
    assert settings.ca_bundle == bundle
    assert settings.environment["SSL_CERT_FILE"] == CA_PATH


def test_a_shell_reads_the_script_back_whatever_is_in_it() -> None:
    value = "a'b\"c $HOME $(id) `id` ; \\"
    script = HostSettings({"http_proxy": value}).environment_script()
    shown = subprocess.run(["sh", "-c", f'{script}printf %s "$http_proxy"'], capture_output=True, text=True, check=True)
    assert shown.stdout == value


def test_passwords_and_tokens_in_urls_are_hidden() -> None:
    settings = HostSettings(
        {"PIP_INDEX_URL": "https://me:s3cr%40t@index/simple", "UV_INDEX": "https://a/ https://t0ken@index/"},
        apt_config='Acquire::http::Proxy "http://u:pr0xy@p:1/";\n',
    )
    assert set(settings.hidden()) == {"s3cr%40t", "s3cr@t", "t0ken", "pr0xy"}


def test_steps_of_a_user_get_no_passwords_of_package_indexes(bundle: Path) -> None:
    given = {
        "https_proxy": "http://u:pr0xy@p:1/", "PIP_INDEX_URL": "https://me:i'ndex@index/simple", "PIP_TIMEOUT": "7",
        "PIP_EXTRA_INDEX_URL": "https://open.example/simple", "UV_INDEX_STRATEGY": "unsafe-best-match",
    }  # fmt: skip
    settings = read_host_settings(given, (), 'Acquire::http::Proxy "http://u:apt@p:1/";\n', bundle)
    steps = settings.for_steps()
    assert {*settings.environment} - {*steps.environment} == {"PIP_INDEX_URL", "UV_DEFAULT_INDEX"}
    assert steps.environment["https_proxy"] == given["https_proxy"]
    assert steps.apt_config == f'Acquire::https::CAInfo "{CA_PATH}";\n'
    assert steps.ca_bundle == bundle


def test_steps_are_pointed_to_no_settings_of_apt_that_they_do_not_get() -> None:
    settings = HostSettings({"APT_CONFIG": "/x"}, apt_config='Acquire::http::Proxy "http://u:apt@p:1/";\n')
    assert settings.for_steps() == HostSettings()


def test_files_for_steps_of_a_user_are_others_than_those_for_package_managers(tmp_path: Path) -> None:
    settings = HostSettings({"PIP_INDEX_URL": "https://me:index@index/simple", "no_proxy": "local"})
    files = write_secrets(tmp_path / "secrets", settings, settings.for_steps(), {}, {})
    assert files[ENV_SECRET].read_text() == settings.environment_script()
    assert files[STEPS_ENV_SECRET].read_text() == "export no_proxy=local\n"
