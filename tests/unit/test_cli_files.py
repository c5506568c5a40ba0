"""`longshore validate`, `convert` and `schema`, without any controller."""

import json
from pathlib import Path

import pytest
import yaml

from controller.cli import main
from controller.cli.errors import Exit
from controller.cli.files import shipped_schema
from controller.spec.loader import load_spec
from tests.support.tango_files import PLAIN, as_file, with_value
from tests.unit.test_spec_loader import VALID, changed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGSHORE_CONTEXT", str(tmp_path / "no-such-context"))
    Path("good.yml").write_text(VALID)
    Path("bad.yml").write_text(changed("  packages:", "  packges:").replace("name: digits", "name: Digits"))
    Path("old.yaml").write_text(as_file(PLAIN))
    Path("other.yml").write_text(changed("x86-cpu", "x86-cpuu"))
    return tmp_path


def test_validate_says_of_each_file_what_is_wrong_with_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["validate", "good.yml", "bad.yml", "missing.yml"]) == Exit.INVALID
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "good.yml: valid"
    assert lines[1].startswith("bad.yml:2:7: name: 'Digits' is not allowed")
    assert lines[2].startswith("bad.yml:4:3: build.packges: unknown key; did you mean 'packages'?")
    assert lines[3] == "missing.yml: cannot read missing.yml: No such file or directory"


def test_validate_tells_programs_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["validate", "old.yaml", "bad.yml", "-o", "json"]) == Exit.INVALID
    old, bad = json.loads(capsys.readouterr().out)
    assert (old["file"], old["valid"], old["problems"]) == ("old.yaml", True, [])
    assert old["warnings"][0]["message"].startswith("the file is in an older form")
    assert [problem["path"] for problem in bad["problems"]] == ["name", "build.packges"]
    assert bad["problems"][0].keys() == {"path", "line", "column", "message"}
    assert main.run(["validate", "good.yml", "bad.yml", "-o", "name"]) == Exit.INVALID
    assert capsys.readouterr().out == "bad.yml\n"


def test_what_a_controller_may_know_is_a_warning_unless_one_is_strict(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["validate", "other.yml"]) == Exit.OK
    assert "unknown target profile 'x86-cpuu'; did you mean 'x86-cpu'?" in capsys.readouterr().out
    assert main.run(["validate", "other.yml", "--strict"]) == Exit.INVALID


def test_a_folder_stands_for_its_file_of_either_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "deployment.yaml").write_text(VALID)
    assert main.run(["validate"]) == Exit.OK
    assert capsys.readouterr().out == "deployment.yaml: valid\n"
    # The file is read before any controller is asked: what is missing is the context.
    for command in (["deploy"], ["deploy", "-f", str(folder)]):
        assert main.run([*command, "--context", "no-such-context"]) == Exit.INVALID
        assert capsys.readouterr().err.startswith("error: no context at ")


def test_convert_writes_what_means_the_same_and_says_what_was_understood(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["convert", "old.yaml", "--to", "new.yml"]) == Exit.OK
    assert load_spec(Path("new.yml").read_bytes()) == load_spec(Path("old.yaml").read_bytes())
    said = capsys.readouterr()
    assert said.out == ""
    assert "warning: old.yaml:4:7: build.os: 'ubuntu' is left out" in said.err
    assert main.run(["convert", "new.yml"]) == Exit.OK
    assert capsys.readouterr() == (Path("new.yml").read_text(), "")
    assert main.run(["validate", "new.yml", "--strict"]) == Exit.OK


def test_convert_refuses_what_cannot_be_served_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("old.yaml").write_text(as_file(with_value(("deploy", "type"), "Galaxy_S22")))
    assert main.run(["convert", "old.yaml", "--to", "new.yml"]) == Exit.INVALID
    assert "old.yaml:13:9: deploy.type: 'Galaxy_S22' is an Android app" in capsys.readouterr().err
    assert not Path("new.yml").exists()


def test_convert_takes_a_name_for_a_service_that_has_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = with_value(("deploy", "service_name"), None)
    Path("old.yaml").write_text(as_file(values))
    assert main.run(["convert", "old.yaml", "--name", "digits"]) == Exit.OK
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "digits"


def test_schema_is_printed_as_it_is_published(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["schema"]) == Exit.OK
    assert capsys.readouterr().out == shipped_schema()


def test_build_and_deploy_say_on_stderr_what_of_an_older_form_was_read_as_what(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["build", "old.yaml"], ["deploy", "-f", "old.yaml"]):
        # What the file is, is told before there is any controller to be asked.
        assert main.run([*command, "--context", "no-such-context"]) == Exit.INVALID
        said = capsys.readouterr()
        assert said.out == ""
        assert "warning: old.yaml:4:7: build.os: 'ubuntu' is left out" in said.err
