"""Containerfiles: stable text, and every instruction exactly the one that was meant."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.rendering import CannotQuote, ImagePlan, quoting, render
from controller.spec.model import APT_PACKAGE, ENV_NAME, IMAGE, LABEL, PYPI_REQUIREMENT
from tests.support.containerfile import Instruction, parse, unquote

GOLDEN = Path(__file__).parents[1] / "golden" / "containerfiles"
BASE = "docker.io/library/python:3.11-slim-bookworm"
LABELS = (("dev.longshore.name", "digits"), ("org.opencontainers.image.title", "digits"))
PLANS = {
    "bare": ImagePlan(base="docker.io/library/debian:bookworm-slim", workdir="/app", labels=LABELS),
    "files": ImagePlan(
        base=BASE, workdir="/srv/my app", has_files=True, labels=LABELS, entrypoint=("python3", "server.py")
    ),
    "apt": ImagePlan(base=BASE, workdir="/app", apt=("libgomp1", "g++=4:12.2.0-3"), labels=LABELS),
    "pypi": ImagePlan(base=BASE, workdir="/app", pypi=("numpy>=1.26,<3", "uvicorn[standard]"), labels=LABELS),
    "all": ImagePlan(
        base=BASE,
        workdir="/app",
        apt=("libgomp1",),
        pypi=("onnxruntime==1.20.1",),
        has_files=True,
        environment=(("GREETING", 'it\'s $5 "now" \\'), ("THREADS", "2")),
        labels=LABELS,
        ports=(8000, 9000),
        entrypoint=("python3", "server.py", "--name", 'a "b" $c'),
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_containerfile_is_as_it_was_reviewed(name: str) -> None:
    """LONGSHORE_UPDATE_GOLDEN=1 writes the files anew, to be read in the diff."""
    text = render(PLANS[name])
    file = GOLDEN / f"{name}.Containerfile"
    if os.environ.get("LONGSHORE_UPDATE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def test_the_same_plan_gives_the_same_text() -> None:
    assert render(PLANS["all"]) == render(PLANS["all"])


def test_files_come_after_packages_and_before_nothing_that_makes_a_layer() -> None:
    keywords = [instruction.keyword for instruction in parse(render(PLANS["all"]))]
    after = keywords[keywords.index("COPY") + 1 :]
    assert keywords.index("COPY") > max(i for i, keyword in enumerate(keywords) if keyword == "RUN")
    assert set(after) <= {"ENV", "LABEL", "EXPOSE", "USER", "ENTRYPOINT"}


def test_the_service_runs_as_no_root() -> None:
    users = [instruction.text for instruction in parse(render(PLANS["bare"])) if instruction.keyword == "USER"]
    assert users[-1] == "1000:1000"


def test_more_packages_than_a_command_can_carry_are_refused() -> None:
    plan = ImagePlan(base=BASE, workdir="/app", pypi=tuple(f"package-number-{number}" for number in range(10_000)))
    with pytest.raises(CannotQuote, match="10000 packages"):
        render(plan)


NOT_PRINTABLE = ["a\nRUN rm -rf /", "a\rb", "\0", "a\x85b", "a\u2028b", "\x7f"]


@pytest.mark.parametrize("text", NOT_PRINTABLE)
def test_line_breaks_and_control_characters_are_refused_everywhere(text: str) -> None:
    for plan in (
        ImagePlan(base=BASE, workdir=f"/{text}"),
        ImagePlan(base=text, workdir="/app"),
        ImagePlan(base=BASE, workdir="/app", apt=(text,)),
        ImagePlan(base=BASE, workdir="/app", pypi=(text,)),
        ImagePlan(base=BASE, workdir="/app", environment=(("A", text),)),
        ImagePlan(base=BASE, workdir="/app", environment=((text, "a"),)),
        ImagePlan(base=BASE, workdir="/app", labels=((text, "a"),)),
        ImagePlan(base=BASE, workdir="/app", labels=(("a", text),)),
        ImagePlan(base=BASE, workdir="/app", entrypoint=(text,)),
    ):
        with pytest.raises(CannotQuote):
            render(plan)


@pytest.mark.parametrize("name", ["curl-", "-y", "curl wget", "$(id)", "curl;id", "lib.*", "/etc/passwd", "curl\n"])
def test_what_apt_would_not_take_as_a_name_is_refused(name: str) -> None:
    with pytest.raises(CannotQuote):
        quoting.apt_package(name)


# Text as the spec lets it in: no control characters; tabs are allowed.
nasty = st.text(
    st.one_of(
        st.sampled_from(list("\"'\\$`#;&|<>(){}[]*?!~=, \t")),
        st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\x7f\x85"),
    ),
    max_size=30,
)
paths = nasty.map(lambda text: "/" + text.replace("..", ""))


def pattern(regex: str) -> st.SearchStrategy[str]:
    return st.from_regex(regex.removesuffix("$") + r"\Z", fullmatch=False).filter(lambda text: not text.endswith("-"))


plans = st.builds(
    ImagePlan,
    base=pattern(IMAGE),
    workdir=paths,
    apt=st.lists(pattern(APT_PACKAGE), max_size=4).map(tuple),
    pypi=st.lists(pattern(PYPI_REQUIREMENT.replace(r"\s", "[ ]").replace("[[ ]", "[ ")), max_size=3).map(tuple),
    has_files=st.booleans(),
    environment=st.lists(st.tuples(pattern(ENV_NAME), nasty), max_size=3).map(tuple),
    labels=st.lists(st.tuples(pattern(LABEL), nasty), min_size=1, max_size=3).map(tuple),
    ports=st.lists(st.integers(1, 65535), max_size=3).map(tuple),
    entrypoint=st.lists(nasty, max_size=3).map(tuple),
)


@given(plans)
def test_rendered_text_parses_to_exactly_the_intended_instructions(plan: ImagePlan) -> None:
    found = parse(render(plan))
    assert [instruction.keyword for instruction in found] == expected_keywords(plan)
    by_keyword: dict[str, list[Instruction]] = {}
    for instruction in found:
        by_keyword.setdefault(instruction.keyword, []).append(instruction)
    assert by_keyword["FROM"][0].text == plan.base
    assert by_keyword["WORKDIR"][0].word() == plan.workdir
    assert by_keyword["LABEL"][0].pairs() == list(plan.labels)
    if plan.environment:
        assert by_keyword["ENV"][-1].pairs() == list(plan.environment)
    if plan.ports:
        assert by_keyword["EXPOSE"][0].text.split() == [str(port) for port in plan.ports]
    if plan.entrypoint:
        assert by_keyword["ENTRYPOINT"][0].exec_form() == list(plan.entrypoint)
    check_commands(plan, by_keyword["RUN"])


def expected_keywords(plan: ImagePlan) -> list[str]:
    return [
        "FROM", "USER", "RUN", *["RUN"] * bool(plan.apt), *["RUN", "ENV"] * bool(plan.pypi), "WORKDIR",
        *["COPY"] * plan.has_files, *["ENV"] * bool(plan.environment), "LABEL", *["EXPOSE"] * bool(plan.ports), "USER",
        *["ENTRYPOINT"] * bool(plan.entrypoint),
    ]  # fmt: skip


def check_commands(plan: ImagePlan, commands: list[Instruction]) -> None:
    """The commands are those of a plan of harmless names, with the names exchanged."""
    plain = ImagePlan(base="b", workdir="/W", apt=tuple("aa" for _ in plan.apt),
                      pypi=tuple("p" for _ in plan.pypi), labels=(("l", "l"),))  # fmt: skip
    harmless = [one for one in parse(render(plain)) if one.keyword == "RUN"]
    typed = [[plan.workdir], *([list(plan.apt)] if plan.apt else []), *([list(plan.pypi)] if plan.pypi else [])]
    for real, like, names in zip(commands, harmless, typed, strict=True):
        words, expected = real.shell_words(), like.shell_words()
        assert len(words) == len(expected)
        exchanged = [word for word, other in zip(words, expected, strict=True) if word != other]
        assert all(word in names for word in exchanged)
        for name in names:
            assert name in words


@given(nasty)
def test_a_quoted_word_reads_back_as_it_was(text: str) -> None:
    assert unquote(quoting.word(text)) == text
    assert Instruction("RUN", f"echo {quoting.shell(text)}").shell_words() == ["echo", text]
