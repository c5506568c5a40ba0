"""A deployment.yml is either a valid Spec or all of its problems, each with its place."""

from collections.abc import Mapping

import pytest

from controller.builds.targets import TargetProfile, load_profiles
from controller.errors import InvalidSpec, Problem
from controller.spec.loader import load_spec
from controller.spec.model import Spec

VALID = """\
version: 1
name: digits
build:
  packages:
    apt: [libgomp1]
    pypi: ["onnxruntime>=1.17,<2", numpy]
  files: [server.py, ./model/, model/digits.onnx]
  environment: {PRECISION: 1.10, PIN: 0123, FLAG: true, ANSWER: no}
deploy:
  entrypoint: [python, server.py]
  network:
    ports: [{name: http, container: 8080, host: auto}]
  checks:
    readiness: {http: {port: http, path: /healthz}, period: 500ms}
  resources: {cpu: 1, memory: 512MiB}
targets:
  - profile: x86-cpu
    labels: {site: hall-1}
"""


def problems(text: str | bytes, known: Mapping[str, TargetProfile] | None = None) -> list[Problem]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(InvalidSpec) as caught:
        load_spec(data, known)
    return caught.value.problems


def only(text: str | bytes, known: Mapping[str, TargetProfile] | None = None) -> Problem:
    (problem,) = problems(text, known)
    return problem


def changed(old: str, new: str) -> str:
    assert old in VALID
    return VALID.replace(old, new)


def test_valid_file_becomes_a_spec_with_what_was_written() -> None:
    spec = load_spec(VALID.encode(), load_profiles())
    assert isinstance(spec, Spec)
    assert spec.build.files == ["server.py", "model", "model/digits.onnx"]
    assert spec.deploy.resources.memory == 512 * 2**20


def test_scalars_of_the_environment_keep_their_spelling() -> None:
    environment = load_spec(VALID.encode()).build.environment
    assert environment == {"PRECISION": "1.10", "PIN": "0123", "FLAG": "true", "ANSWER": "no"}


def test_every_problem_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = changed("name: digits", "nam: Digits").replace("container: 8080", "container: 99999")
    text = text.replace("cpu: 1", "cpu: -1").replace("x86-cpu", "x86-cpo")
    found = problems(text, load_profiles())
    assert [problem.path for problem in found] == [
        "name",
        "nam",
        "deploy.network.ports[0].container",
        "deploy.resources.cpu",
        "targets[0].profile",
    ]
    assert [problem.line for problem in found] == sorted(problem.line for problem in found)


def test_place_of_a_problem_is_that_of_its_value() -> None:
    problem = only(changed("- profile: x86-cpu", "- profile: X86"))
    assert (problem.path, problem.line, problem.column) == ("targets[0].profile", 17, 14)
    assert "lower-case letters" in problem.message


def test_misspelled_key_is_placed_at_the_key_and_gets_a_suggestion() -> None:
    problem = only(changed("  packages:", "  packges:"))
    assert (problem.path, problem.line, problem.column) == ("build.packges", 4, 3)
    assert problem.message == (
        "unknown key; did you mean 'packages'?; allowed: allow_root, base, distribution, environment, files, "
        "image, labels, minimum, packages, push, runtime, secrets, steps, tags, timeout, volumes, workdir"
    )


@pytest.mark.parametrize(
    ("old", "new", "meant"),
    [
        ("  environment:", "  env:", "environment"),
        ("labels:", "selector:", "labels"),
        ("  entrypoint:", "  cmd:", "entrypoint"),
    ],
)
def test_key_of_another_tool_gets_ours_for_a_suggestion(old: str, new: str, meant: str) -> None:
    messages = [problem.message for problem in problems(changed(old, new)) if "unknown key" in problem.message]
    assert [message.split("; allowed")[0] for message in messages] == [f"unknown key; did you mean '{meant}'?"]


def test_unknown_profile_is_refused_with_the_nearest_known_one() -> None:
    problem = only(changed("x86-cpu", "x86-cpuu"), {name: load_profiles()[name] for name in ("arm64-cpu", "x86-cpu")})
    assert problem.message == "unknown target profile 'x86-cpuu'; did you mean 'x86-cpu'?; known: arm64-cpu, x86-cpu"


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        (b"", 1, 1, "the file is empty"),
        (b"# only a comment\n", 1, 1, "the file is empty"),
        (b"- a\n", 1, 1, "expected a mapping"),
        (b"version: 1\nname: \xff\n", 2, 7, "not UTF-8"),
        (b"version: 1\nbuild:\n\tbase: x\n", 3, 1, "a tab is used"),
        (b"version: 1\nname: [a\n", 3, 1, "not YAML"),
        (b"version: 1\n---\nversion: 1\n", 2, 1, "a second document"),
        (b"version: 1\nname: a\x07b\n", 2, 8, "is not allowed in YAML"),
        (b"version: 1\nname: *other\n", 2, 7, "the alias *other names no anchor"),
        (b"version: &me [*me]\n", 1, 15, "the alias *me would contain itself"),
        (b"<<: {a: b}\n", 1, 1, "merging by '<<' is not supported"),
        (b"? [a]\n: b\n", 1, 3, "cannot be a key"),
        (b"[" * 100, 1, 33, "nested deeper than 32 levels"),
        (b"a" * (2**20 + 1), 0, 0, "at most 1048576 are allowed"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_unreadable_file_is_one_problem_that_says_where_and_why(text: bytes, line: int, column: int, said: str) -> None:
    problem = only(text)
    assert (problem.line, problem.column) == (line, column)
    assert said in problem.message


def test_file_that_is_nested_too_deep_even_for_the_parser_gets_the_same_sentence() -> None:
    assert "nested deeper than 32 levels" in only(b"[" * 100_000).message


def test_key_given_twice_is_a_problem_that_names_the_first_line() -> None:
    problem = only(VALID + "name: other\n")
    assert (problem.path, problem.line, problem.message) == ("name", 19, "the key is given twice; first in line 2")


def test_tags_construct_nothing_and_are_refused() -> None:
    tagged = problems(changed("name: digits", "name: !!python/name:os.system digits"))
    assert [p.message for p in tagged] == [
        "the tag tag:yaml.org,2002:python/name:os.system is not allowed; write the plain value"
    ]


def test_aliases_are_read_where_they_stay_small() -> None:
    text = changed("labels: {site: hall-1}", "labels: &l {site: hall-1}\n  - profile: arm64-cpu\n    labels: *l")
    assert load_spec(text.encode()).targets[1].labels == {"site": "hall-1"}


def test_alias_bomb_is_refused_at_once() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    assert "at most 100000 values" in only("\n".join(levels)).message


def test_service_without_ports_and_check_is_asked_for_a_check() -> None:
    text = changed("    ports: [{name: http, container: 8080, host: auto}]\n", "    ports: []\n")
    text = text.replace("  checks:\n    readiness: {http: {port: http, path: /healthz}, period: 500ms}\n", "")
    problem = only(text)
    assert problem.path == "deploy.checks.readiness"
    assert "without ports it needs a readiness check" in problem.message


def test_check_of_an_unknown_port_gets_the_nearest_name() -> None:
    problem = only(changed("{port: http, path", "{port: htp, path"))
    assert (problem.path, problem.line) == ("deploy.checks.readiness.http.port", 14)
    assert problem.message == "no port is named 'htp'; did you mean 'http'?; known: http"


def test_ports_that_collide_are_refused() -> None:
    ports = "[{name: a, container: 80}, {name: a, container: 81, host: 80}, {name: http, container: 82}]"
    found = problems(changed("[{name: http, container: 8080, host: auto}]", ports))
    assert [(p.path, p.message) for p in found] == [
        (
            "deploy.network.ports[1]",
            "two ports want port 80 of the device; set `host: auto` or another",
        ),
        ("deploy.network.ports[1].name", "'a' names two ports"),
    ]


def test_default_base_needs_an_entrypoint() -> None:
    problem = only(changed("  entrypoint: [python, server.py]\n", ""))
    assert problem.path == "deploy.entrypoint"
    with_base = changed("  entrypoint: [python, server.py]\n", "").replace("build:\n", "build:\n  base: nginx:1\n")
    assert load_spec(with_base.encode()).deploy.entrypoint == []


def test_mounts_and_targets_given_twice_are_refused() -> None:
    text = changed("  resources:", "  mounts: [{src: /a, dst: /x}, {src: /b, dst: /x/}]\n  resources:")
    text += "  - {profile: x86-cpu, labels: {site: hall-1}}\n"
    assert [p.path for p in problems(text)] == ["deploy.mounts[1].dst", "targets[1]"]


def with_secrets(secrets: str, more: str = "") -> str:
    return changed("  resources:", f"  secrets: [{secrets}]\n{more}  resources:")


def test_a_secret_lies_where_it_is_said_or_below_run_secrets() -> None:
    spec = load_spec(with_secrets("{name: token}, {name: key.pem, dst: /etc/app/key.pem}").encode())
    assert [secret.place for secret in spec.deploy.secrets] == ["/run/secrets/token", "/etc/app/key.pem"]


@pytest.mark.parametrize(
    ("secrets", "more", "path", "said"),
    [
        ("{name: a}, {name: a, dst: /b}", "", "deploy.secrets[1].name", "'a' names two secrets"),
        ("{name: a}, {name: b, dst: /run/secrets/a}", "", "deploy.secrets[1].dst", "lie at /run/secrets/a"),
        ("{name: a}", "  mounts: [{src: /x, dst: /run/secrets/a}]\n", "deploy.secrets[0]", "lie at /run/secrets/a"),
        ("{name: a, dst: /x}", "  volumes: [{name: v, dst: /x/}]\n", "deploy.secrets[0].dst", "lie at /x"),
        ("{name: a, dst: /x/}", "", "deploy.secrets[0].dst", "expected the path of a file"),
        ("{name: a, dst: /}", "", "deploy.secrets[0].dst", "expected the path of a file"),
        ("{name: a, dst: x}", "", "deploy.secrets[0].dst", "expected an absolute path"),
        ("{name: ../a}", "", "deploy.secrets[0].name", "'../a'"),
        ("{name: a, content: b}", "", "deploy.secrets[0].content", "unknown key; allowed: dst, name"),
        ("token", "", "deploy.secrets[0]", "token"),
    ],
)
def test_names_and_places_of_secrets_are_unique_and_possible(secrets: str, more: str, path: str, said: str) -> None:
    problem = only(with_secrets(secrets, more))
    assert problem.path == path
    assert said in problem.message


def test_no_more_secrets_than_a_device_can_be_told_at_once() -> None:
    assert load_spec(with_secrets(", ".join(f"{{name: s{n}}}" for n in range(16))).encode())
    assert only(with_secrets(", ".join(f"{{name: s{n}}}" for n in range(17)))).path == "deploy.secrets"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version: 1", "version: 2", "expected 1, not '2'"),
        ("version: 1", "version: true", "'true': expected 1"),
        ("name: digits", "name: 12", "expected text, not '12'; put it in quotes"),
        ("host: auto", "host: aut", "did you mean 'auto'?"),
        ("period: 500ms", "period: soon", "'soon': expected a duration such as 500ms, 10s or 2m"),
        ("period: 500ms", "period: 9999999h", "at most 168h"),
        ("period: 500ms", "period: 1ms", "'1ms': expected at least 0.1s"),
        ("memory: 512MiB", "memory: 1MiB", "'1MiB' is not allowed; expected at least 4MiB"),
        ("memory: 512MiB", "memory: 99999999999GiB", "expected a size such as 512MiB"),
        ("cpu: 1", "cpu: many", "expected a number, not 'many'"),
        ("cpu: 1", "cpu: 0", "expected more than 0"),
        ("apt: [libgomp1]", "apt: libgomp1", "expected a list, not 'libgomp1'"),
        ("apt: [libgomp1]", "apt: ['a; rm -rf /']", "expected a Debian package"),
        ("numpy]", "'numpy @ file:///x']", "expected a Python package"),
        ("server.py, ./model/", "/etc/passwd, ./model/", "expected a path below the folder"),
        ("PIN: 0123", "1PIN: 0123", "expected a variable name"),
        ("resources: {cpu: 1, memory: 512MiB}", "resources:", "expected a mapping, not nothing"),
        ("resources:", "restart: sometimes\n  resources:", "expected always or on-failure or never"),
    ],
)
def test_wrong_value_says_what_is_allowed(old: str, new: str, said: str) -> None:
    assert said in only(changed(old, new)).message


READINESS = "{http: {port: http, path: /healthz}, period: 500ms}"


@pytest.mark.parametrize(
    ("given", "path", "said"),
    [
        ("{inference: {port: http, path: /x, expect: {}}}", "inference", "exactly one of request, request_bytes"),
        ("{inference: {port: http, path: /x, request_bytes: '?', expect: 1}}", "inference.request_bytes", "base64"),
        ("{inference: {port: htp, path: /x, request: 1, expect: 1}}", "inference.port", "did you mean 'http'"),
        ("{inference: {port: http, path: /x, request: 1, expect: 1, tolerance: -1}}", "inference.tolerance", "0"),
    ],
)
def test_a_wrong_inference_check_is_told_at_its_place(given: str, path: str, said: str) -> None:
    problem = only(changed(READINESS, given))
    assert problem.path == f"deploy.checks.readiness.{path}"
    assert said in problem.message


@pytest.mark.parametrize(
    ("given", "path", "said"),
    [
        ("volumes: [{name: a, dst: /d}, {name: b, dst: /d/}]", "volumes[1].dst", "lie at /d"),
        ("volumes: [{name: a, dst: /d}, {name: a, dst: /e}]", "volumes[1].name", "names two volumes"),
        (
            "volumes: [{name: a, dst: /d, version: 'sha256:" + "a" * 64 + "'}]",
            "volumes[0]",
            "name it as project_volume",
        ),
        (
            "volumes: [{name: a, dst: /d, project_volume: m, read_only: false}]",
            "volumes[0]",
            "always read-only",
        ),
        ("volumes: [{name: a, dst: /d, project_volume: m, version: v1}]", "volumes[0].version", "sha256"),
        ("allow: [everything]", "allow[0]", "writable-root"),
        ("allow: [CAP_SYS_ADMIN]", "allow[0]", "CAP_SYS_NICE"),
        ("update: later", "update", "stop-first"),
    ],
)
def test_wrong_ways_to_run_are_told_at_their_place(given: str, path: str, said: str) -> None:
    problem = only(changed("  resources:", f"  {given}\n  resources:"))
    assert problem.path == f"deploy.{path}"
    assert said in problem.message
