"""Containerfiles: stable text, and every instruction exactly the one that was meant."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from controller.rendering import CannotQuote, ImagePlan, quoting, render
from controller.spec.fields import (
    APK_PACKAGE,
    APT_PACKAGE,
    CONDA_PACKAGE,
    DNF_PACKAGE,
    PYPI_REQUIREMENT,
)
from controller.spec.model import BuildSpec
from tests.support.containerfile import Instruction, parse, unquote
from tests.support.drawn_plans import nasty, plans

GOLDEN = Path(__file__).parents[1] / "golden" / "containerfiles"
BASE = "docker.io/library/python:3.11-slim-bookworm"
LABELS = (("dev.longshore.name", "digits"), ("org.opencontainers.image.title", "digits"))
BARE = ImagePlan(base="docker.io/library/debian:bookworm-slim", workdir="/app", cache_scope="alice", labels=LABELS)
PYTHON = replace(BARE, base=BASE)
PLANS = {
    "bare": BARE,
    "root": replace(BARE, allow_root=True),
    "files": replace(PYTHON, workdir="/srv/my app", folders=("files",), entrypoint=("python3", "server.py")),
    "large": replace(PYTHON, folders=("large/00", "large/01", "files")),
    "apt": replace(PYTHON, apt=("libgomp1", "g++=4:12.2.0-3")),
    "apt-prepared": replace(PYTHON, apt=("libgomp1",), prepared_root=True, prepared_apt=True),
    "apt-configured": replace(PYTHON, apt=("libgomp1",), prepared_apt=True, configure_apt=True),
    "dnf": replace(BARE, base="quay.io/fedora/fedora:41", dnf=("libgomp", "gcc-c++")),
    "apk": replace(BARE, base="docker.io/library/alpine:3.20", apk=("libgomp", "g++=13.2.1_git20240309-r0")),
    "pypi": replace(PYTHON, pypi=("numpy>=1.26,<3", "uvicorn[standard]")),
    "pypi-indexes": replace(PYTHON, pypi=("torch==2.5.1",), pypi_indexes=("https://download.pytorch.org/whl/cpu",)),
    "pypi-prepared": replace(PYTHON, pypi=("numpy",), prepared_pypi=True),
    "conda": replace(BARE, conda=("python =3.12", "numpy>=2"), conda_channels=("conda-forge", "bioconda")),
    "conda-scripts": replace(BARE, conda=("qt",), conda_channels=("conda-forge",), conda_scripts=("qt 6.8.1 2",)),
    "conda-and-pypi": replace(BARE, conda=("python",), conda_channels=("conda-forge",), pypi=("flask",)),
    "steps": replace(PYTHON, folders=("files",), steps=("make install", 'echo "$HOME" \\'), secrets=("token",)),
    "volumes": replace(BARE, volumes=("/data", "/var/my cache")),
    "runtime": replace(PYTHON, runtime_files=(("serve.py", b""),), pypi=("onnxruntime",), folders=("large/00",)),
    "all": replace(
        PYTHON,
        apt=("libgomp1",),
        conda=("numpy",),
        conda_channels=("conda-forge",),
        pypi=("onnxruntime==1.20.1",),
        pypi_indexes=("https://pypi.example/simple",),
        runtime_files=(("serve.py", b""),),
        folders=("large/00", "files"),
        steps=("make",),
        secrets=("token",),
        environment=(("GREETING", 'it\'s $5 "now" \\'), ("THREADS", "2")),
        ports=(8000, 9000),
        volumes=("/data",),
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


def test_no_reviewed_containerfile_is_left_over() -> None:
    assert {path.name.removesuffix(".Containerfile") for path in GOLDEN.glob("*.Containerfile")} == set(PLANS)


def test_the_same_plan_gives_the_same_text() -> None:
    assert render(PLANS["all"]) == render(PLANS["all"])


def test_layers_go_from_what_changes_seldom_to_what_changes_often() -> None:
    texts = [f"{one.keyword} {one.text}" for one in parse(render(PLANS["all"]))]
    order = ["apt-get install", "prepared/conda.tar", "uv pip install", "runtime/", "large/00", '"files/"', '"make"']
    places = [next(number for number, text in enumerate(texts) if part in text) for part in order]
    assert places == sorted(places)
    after = [text.split()[0] for text in texts[places[-1] + 1 :]]
    # The last RUN takes sudo away again, in case that a step brought it.
    assert after == ["RUN", "LABEL", "EXPOSE", "VOLUME", "USER", "ENTRYPOINT"]


def test_a_change_of_code_or_metadata_changes_no_package_step() -> None:
    plan = PLANS["all"]
    other = replace(plan, folders=("files",), environment=(), labels=(("a", "b"),), ports=(), entrypoint=("x",))
    steps = [[one for one in parse(render(each)) if one.keyword == "RUN"] for each in (plan, other)]
    assert steps[0] == steps[1]


def test_another_list_of_packages_is_another_step() -> None:
    """Podman does not look into what is mounted when it decides whether it knows a step."""
    names = ("aa 1 0", "bb 1 0")
    for field in ("apt", "dnf", "apk", "pypi", "conda_scripts"):
        listed = names if field == "conda_scripts" else [name[:2] for name in names]
        plans = [replace(PYTHON, conda=("x",), **{field: (name,)}) for name in listed]  # type: ignore[arg-type]
        one, other = ([step.text for step in parse(render(plan)) if step.keyword == "RUN"] for plan in plans)
        assert one != other
    plans = [replace(PYTHON, pypi=("aa",), pypi_indexes=(f"https://{name[:2]}/",)) for name in names]
    assert parse(render(plans[0])) != parse(render(plans[1]))


def test_caches_of_packages_are_shared_by_nobody_outside_of_the_scope() -> None:
    def caches(plan: ImagePlan) -> set[str]:
        return {mount["id"] for one in parse(render(plan)) for mount in one.mounts() if mount["type"] == "cache"}

    plan = PLANS["all"]
    assert len(caches(plan)) == 2
    assert caches(plan) == caches(replace(plan, apt=("other",), labels=(("a", "b"),)))
    assert caches(plan).isdisjoint(caches(replace(plan, cache_scope="bob")))
    assert caches(plan).isdisjoint(caches(replace(plan, base="docker.io/library/debian:12")))


def test_the_service_runs_as_no_root_unless_asked() -> None:
    for name, user in (("bare", "1000:1000"), ("root", "0:0")):
        found = parse(render(PLANS[name]))
        assert [instruction.text for instruction in found if instruction.keyword == "USER"][-1] == user
        assert any("for tool in sudo sudoedit doas; do rm -f" in one.text for one in found) == (name == "bare")


def test_only_users_steps_see_the_users_secrets() -> None:
    steps = [one for one in parse(render(PLANS["all"])) if one.keyword == "RUN"]
    seeing = [one for one in steps if any(mount.get("id") == "token" for mount in one.mounts())]
    assert [one.run_form()[-1] for one in seeing] == ["make"]


def test_a_layer_that_a_secret_helped_to_make_is_nobody_elses() -> None:
    """Podman's cache of layers does not look at the values of secrets."""
    for secrets, shared in ((("token",), False), ((), True)):
        plans = [replace(PLANS["steps"], secrets=secrets, cache_scope=user) for user in ("alice", "bob")]
        one, other = ([step.text for step in parse(render(plan)) if '"make' in step.text] for plan in plans)
        assert (one == other) is shared


def test_ten_thousand_packages_of_each_kind_are_a_short_containerfile() -> None:
    names = tuple(f"package-number-{number}" for number in range(10_000))
    plan = replace(BARE, apt=names, dnf=names, apk=names, pypi=names, conda=names, conda_channels=("conda-forge",))
    assert len(render(plan)) < 20_000
    assert all(packages.count == 10_000 for packages in plan.package_lists().values())


def test_names_longer_than_the_arguments_of_a_process_are_refused() -> None:
    plan = replace(BARE, apt=tuple(f"{'x' * 95}{number:05}" for number in range(20_000)))
    with pytest.raises(CannotQuote, match="20000 apt packages"):
        render(plan)


NOT_PRINTABLE = ["a\nRUN rm -rf /", "a\rb", "\0", "a\x85b", "a\u2028b", "\x7f"]


@pytest.mark.parametrize("text", NOT_PRINTABLE)
def test_line_breaks_and_control_characters_are_refused_everywhere(text: str) -> None:
    changes: list[dict[str, object]] = [
        {"workdir": f"/{text}"}, {"base": text}, {"apt": (text,)}, {"dnf": (text,)}, {"apk": (text,)},
        {"pypi": (text,)}, {"pypi": ("a",), "pypi_indexes": (f"https://{text}",)},
        {"conda": (text,), "conda_channels": ("a",)}, {"conda": ("a",), "conda_channels": (text,)},
        {"steps": (text,)}, {"steps": ("a",), "secrets": (text,)}, {"volumes": (f"/{text}",)},
        {"environment": (("A", text),)}, {"environment": ((text, "a"),)}, {"labels": ((text, "a"),)},
        {"labels": (("a", text),)}, {"entrypoint": (text,)},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(CannotQuote):
            render(replace(BARE, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["curl-", "-y", "curl wget", "$(id)", "curl;id", "lib*", "/etc/passwd", "curl\n"])
def test_what_a_package_manager_would_not_take_as_a_name_is_refused(name: str) -> None:
    for check in (quoting.apt_package, quoting.dnf_package, quoting.apk_package, quoting.conda_package):
        with pytest.raises(CannotQuote):
            check(name)


@pytest.mark.parametrize(
    "text", ["-r /etc/passwd", "--index-url=https://evil/", "a # b", "a\\", "${HOME}", "a @ file:///x"]
)
def test_a_requirement_is_never_an_option_of_the_installer(text: str) -> None:
    with pytest.raises(CannotQuote):
        quoting.pypi_requirement(text)


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
    assert by_keyword["USER"][-1].text == plan.owner
    if plan.environment:
        assert by_keyword["ENV"][-1].pairs() == list(plan.environment)
    if plan.ports:
        assert by_keyword["EXPOSE"][0].text.split() == [str(port) for port in plan.ports]
    if plan.volumes:
        assert by_keyword["VOLUME"][0].paths() == list(plan.volumes)
    if plan.entrypoint:
        assert by_keyword["ENTRYPOINT"][0].exec_form() == list(plan.entrypoint)
    check_commands(plan, by_keyword.get("RUN", []))


def expected_keywords(plan: ImagePlan) -> list[str]:
    prepared = ["ADD", *["RUN"] * plan.configure_apt]
    return [
        "FROM", "USER", "ADD" if plan.prepared_root else "RUN",
        *(prepared if plan.prepared_apt else ["RUN"] * bool(plan.apt)),
        *["RUN"] * bool(plan.dnf), *["RUN"] * bool(plan.apk), *["RUN"] * plan.allow_root,
        *["ADD", *["RUN"] * bool(plan.conda_scripts), "ENV"] * bool(plan.conda),
        *(["ADD" if plan.prepared_pypi else "RUN", "ENV"] if plan.pypi else []),
        *["COPY"] * bool(plan.runtime_files), "WORKDIR", *["COPY" for _ in plan.folders],
        *["ENV"] * bool(plan.environment), *["RUN" for _ in plan.steps],
        *["RUN"] * bool(plan.steps and not plan.allow_root), "LABEL", *["EXPOSE"] * bool(plan.ports),
        *["VOLUME"] * bool(plan.volumes), "USER", *["ENTRYPOINT"] * bool(plan.entrypoint),
    ]  # fmt: skip


def check_commands(plan: ImagePlan, commands: list[Instruction]) -> None:
    """Steps are what was typed; all other commands are those of a plan of harmless names."""
    given = [one for one in commands if one.command().startswith("[")]
    assert [one.run_form()[4:] for one in given] == [[step] for step in plan.steps]
    for one in given:
        secrets = [mount["id"] for mount in one.mounts() if not mount["id"].startswith("longshore-")]
        assert secrets == list(plan.secrets) or any(name.startswith("longshore-") for name in plan.secrets)
    harmless = [one for one in parse(render(harmless_like(plan))) if one.keyword == "RUN" and "sh -c" not in one.text]
    typed = {plan.workdir, *plan.volumes}
    others = [one for one in commands if one not in given]
    for real, like in zip(others, [one for one in harmless if not one.command().startswith("[")], strict=True):
        words = Instruction("RUN", real.command()).shell_words()
        expected = Instruction("RUN", like.command()).shell_words()
        assert len(words) == len(expected)
        exchanged = {word for word, other in zip(words, expected, strict=True) if word != other}
        assert all(word in typed or word.startswith("sha256:") for word in exchanged)


def harmless_like(plan: ImagePlan) -> ImagePlan:
    return replace(
        plan, base="b", workdir="/W", cache_scope="", apt=("aa",) * len(plan.apt), dnf=("a",) * len(plan.dnf),
        apk=("a",) * len(plan.apk), conda=("a",) * len(plan.conda), conda_channels=("a",) * len(plan.conda_channels),
        conda_scripts=("a 1 0",) * len(plan.conda_scripts),
        pypi=("p",) * len(plan.pypi), pypi_indexes=("http://a",) * len(plan.pypi_indexes), secrets=(),
        steps=("s",) * len(plan.steps), volumes=("/V",) * len(plan.volumes),
    )  # fmt: skip


@given(plans)
def test_lists_of_packages_read_back_as_they_were(plan: ImagePlan) -> None:
    lists = plan.package_lists()
    for manager, names in (("apt", () if plan.prepared_apt else plan.apt), ("dnf", plan.dnf), ("apk", plan.apk)):
        assert (lists[manager].text.splitlines() if manager in lists else []) == list(names)
    assert (lists["conda_scripts"].text.splitlines() if plan.conda_scripts else []) == list(plan.conda_scripts)
    if "pypi" in lists:
        lines = lists["pypi"].text.splitlines()
        assert lines == [*(f"--extra-index-url {url}" for url in plan.pypi_indexes), *plan.pypi]


@given(nasty)
def test_a_quoted_word_reads_back_as_it_was(text: str) -> None:
    assert unquote(quoting.word(text)) == text
    assert Instruction("RUN", f"echo {quoting.shell(text)}").shell_words() == ["echo", text]
    assert Instruction("VOLUME", quoting.json_paths([text.strip()])).paths() == [text.strip()]


@pytest.mark.parametrize("path", ["/data ", "/data\u3000", "/data\t"])
def test_a_volume_whose_last_blanks_podman_would_drop_is_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        BuildSpec.model_validate({"volumes": [path]})
    with pytest.raises(CannotQuote):
        render(replace(BARE, volumes=(path,)))


anything = st.text(
    st.one_of(st.sampled_from("-+.=:~<>!*[]@/ aA0_\n\x85\u2028\x7f\t'\"$`;"), st.characters()), max_size=12
)
FIELDS = [
    (("packages", "apt"), APT_PACKAGE), (("packages", "dnf"), DNF_PACKAGE), (("packages", "apk"), APK_PACKAGE),
    (("packages", "pypi"), PYPI_REQUIREMENT), (("packages", "conda", "packages"), CONDA_PACKAGE),
    (("steps",), ""), (("volumes",), "^/"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "regex"), FIELDS, ids=lambda value: ".".join(value) if isinstance(value, tuple) else ""
)
@given(st.data())
def test_what_a_spec_lets_in_can_be_rendered(path: tuple[str, ...], regex: str, data: st.DataObject) -> None:
    """Nothing is refused only when the build has begun."""
    value = data.draw(anything if not regex else st.one_of(anything, st.from_regex(regex)))
    content: object = [value]
    for key in reversed(path):
        content = {key: content}
    try:
        spec = BuildSpec.model_validate(content)
    except ValidationError:
        return
    conda = spec.packages.conda
    plan = replace(
        BARE, apt=tuple(spec.packages.apt), dnf=tuple(spec.packages.dnf), apk=tuple(spec.packages.apk),
        pypi=tuple(spec.packages.pypi), conda=tuple(conda.packages) if conda else (), conda_channels=("a",),
        steps=tuple(spec.steps), volumes=tuple(spec.volumes),
    )  # fmt: skip
    assert parse(render(plan))
