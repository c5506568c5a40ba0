"""What the pages say can be done as they say it: links lead somewhere, commands and files exist, settings are valid."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from baremetal_agent.main import PROGRAM as BAREMETAL
from controller import admin
from controller.builds.targets import load_profiles
from controller.cli import main as cli
from controller.local.broker import access_list
from controller.settings import Settings
from controller.spec.loader import load_spec
from edge_agent.host.commands import parser_of
from edge_agent.main import PROGRAM as EDGE
from edge_agent.runtime.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
# One of our programs with its words, from the beginning of a line.
CALL = re.compile(r"(?:sudo )?(?:\S*/)?(longshore|longshore-controller|longshore-(?:edge|baremetal)-agent) ([a-z-].*)$")
AGENTS = {program.name: program for program in (EDGE, BAREMETAL)}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that a heading gives, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every call of one of our programs in a block of commands or in `code`: page, and its words."""
    for page in PAGES:
        lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
        lines += re.findall(r"^ {4}(\S.*)$", prose(page), re.MULTILINE)
        lines += re.findall(r"`([^`\n]+)`", prose(page))
        for line in lines:
            if call := CALL.match(line):
                yield name(page), [call[1], *shlex.split(call[2], comments=True)]


def known_options(program: str, words: list[str]) -> set[str] | None:
    """The long options of the command that these words call; None where there is no such command."""
    if program in AGENTS:
        return _agent_options(program, words)
    node: Any = typer.main.get_command({"longshore": cli.app, "longshore-controller": admin.app}[program])
    options = _options(node)
    for word in words:
        commands = getattr(node, "commands", {})
        if not commands or word.startswith("-"):
            break
        word = word if word in commands else getattr(node, "default", word)
        if word not in commands:
            return None
        node = commands[word]
        options |= _options(node)
    default = getattr(node, "commands", {}).get(getattr(node, "default", ""))
    options |= _options(default) if default else set()
    return options | {"--help"}


def _options(node: Any) -> set[str]:
    named = {option for parameter in node.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return {option for option in named if option.startswith("--")}


def _agent_options(program: str, words: list[str]) -> set[str] | None:
    commands = parser_of(AGENTS[program])._subparsers
    assert commands is not None
    choices = commands._group_actions[0].choices
    assert isinstance(choices, dict)
    parser = choices.get(words[0])
    return None if parser is None else set(parser._option_string_actions)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_what_exists(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} is not there"
        if anchor:
            assert anchor in anchors(file), f"{target} names no heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_page_is_reached_from_the_readme(page: Path) -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        at = waiting.pop()
        reached.add(at)
        found = {
            (at.parent / target.partition("#")[0]).resolve()
            for target in LINK.findall(prose(at))
            if "://" not in target
        }
        folders = {path / "README.md" for path in found if path.is_dir()}
        waiting += [path for path in found | folders if path.suffix == ".md" and path.exists() and path not in reached]
    assert page in reached


def test_commands_and_options_in_the_pages_exist() -> None:
    calls = list(command_lines())
    assert len(calls) > 30
    for page, (program, *words) in calls:
        options = known_options(program, words)
        assert options is not None, f"{page}: {program} {' '.join(words)}"
        # Behind "--" stand the words of another program.
        own = words[: words.index("--")] if "--" in words else words
        used = {word.partition("=")[0] for word in own if word.startswith("--")}
        assert used <= options, f"{page}: {program} {' '.join(words)}"


def test_make_targets_in_the_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        code = [*re.findall(r"`([^`\n]+)`", prose(page)), *(block for block in blocks(page, "sh"))]
        named = {target for text in code for target in re.findall(r"^(?:JOBS=\d )?make ([a-z-]+)", text, re.MULTILINE)}
        assert named <= targets, name(page)


def test_settings_in_the_operator_guide_are_valid(tmp_path: Path) -> None:
    page = ROOT / "docs" / "operators.md"
    whole, *parts = [yaml.safe_load(block) for block in blocks(page, "yaml")]
    assert Settings.model_validate(whole).registry.address
    for part in parts:
        assert Settings.model_validate({**whole, **part})
    (toml,) = blocks(page, "toml")
    (tmp_path / "agent.toml").write_text(toml)
    assert load_settings(tmp_path, {}).advertise_host


def test_access_list_for_a_broker_of_ones_own_is_the_one_that_ours_has() -> None:
    assert access_list() in blocks(ROOT / "docs" / "topics.md", "")


def test_example_in_the_readme_is_a_valid_deployment() -> None:
    (example,) = blocks(ROOT / "README.md", "yaml")
    assert load_spec(example.encode()).name == "my-model"


@pytest.mark.parametrize(
    "file", sorted((ROOT / "examples").glob("*/deployment.yml")), ids=lambda path: path.parent.name
)
def test_examples_are_valid_and_have_their_files(file: Path) -> None:
    spec = load_spec(file.read_bytes(), load_profiles())
    assert spec.build.files
    for path in spec.build.files:
        assert (file.parent / path).exists()


def test_deployments_in_the_pages_are_valid() -> None:
    whole = [
        block
        for page in PAGES
        for block in blocks(page, "yaml")
        if re.search("^version: 1$", block, re.MULTILINE) and re.search("^targets:", block, re.MULTILINE)
    ]
    assert len(whole) >= 3
    for block in whole:
        assert load_spec(block.encode(), load_profiles()).targets


def test_agent_service_leaves_containers_alone_when_it_stops() -> None:
    unit = (ROOT / "deploy" / "longshore-edge-agent.service").read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    assert settings["KillMode"] == "process"
    namespacing = {"ProtectHome", "ProtectSystem", "PrivateTmp", "PrivateMounts", "PrivateDevices", "ProtectClock"}
    assert not namespacing & settings.keys()


@pytest.mark.parametrize("unit", sorted((ROOT / "deploy").glob("*.service")), ids=lambda path: path.stem)
def test_services_call_commands_that_exist(unit: Path) -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    program, *words = shlex.split(line)
    options = known_options(Path(program).name, words)
    assert options is not None
    assert {word for word in words if word.startswith("--")} <= options
