"""A runtime fills in what a spec leaves out, and refuses what it cannot serve."""

from pathlib import Path

import pytest

from controller.builds.targets import load_profiles
from controller.errors import InvalidSpec, Problem
from controller.spec import runtimes
from controller.spec.completing import complete
from controller.spec.definitions import InvalidDefinition
from controller.spec.loader import load_spec
from controller.spec.model import Spec
from controller.spec.resolve import workload_spec
from controller.spec.runtimes import PLACEHOLDER, load_runtimes, runtime_file

NO_CODE = """\
version: 1
name: digits
build: {runtime: {kind: onnx, path: model/digits.onnx}}
targets: [{profile: x86-cpu}]
"""


def loaded(text: str) -> Spec:
    return load_spec(text.encode(), load_profiles())


def only(text: str) -> Problem:
    with pytest.raises(InvalidSpec) as caught:
        loaded(text)
    (problem,) = caught.value.problems
    return problem


def test_a_spec_that_names_just_a_model_is_whole() -> None:
    spec = loaded(NO_CODE)
    assert spec.build.files == ["model/digits.onnx"]
    assert [(port.name, port.container, port.host) for port in spec.deploy.network.ports] == [
        ("http", 8080, "auto"),
        ("grpc", 8081, "auto"),
    ]
    assert spec.deploy.entrypoint == [
        "python",
        "/opt/longshore/runtime/serve.py",
        "--model=model/digits.onnx",
        "--name=digits",
        "--http-port=8080",
        "--grpc-port=8081",
    ]
    readiness = spec.deploy.checks.readiness
    assert readiness is not None
    assert readiness.http is not None
    assert (readiness.http.port, readiness.http.path) == ("http", "/v2/health/ready")
    assert spec.build.minimum.memory == 128 * 2**20


def test_completing_twice_changes_nothing() -> None:
    spec = loaded(NO_CODE)
    assert complete(spec, load_runtimes()) == spec


def test_every_reader_of_a_spec_sees_it_alike_with_and_without_profiles() -> None:
    assert load_spec(NO_CODE.encode()) == loaded(NO_CODE)


def test_what_the_user_gives_wins() -> None:
    spec = loaded(
        NO_CODE
        + "deploy:\n"
        + "  network: {ports: [{name: http, container: 9000, host: 80}]}\n"
        + "  checks: {readiness: {tcp: {port: http}}}\n"
    )
    assert "--http-port=9000" in spec.deploy.entrypoint
    assert "--grpc-port=8081" in spec.deploy.entrypoint
    assert [port.host for port in spec.deploy.network.ports] == [80]
    assert spec.deploy.checks.readiness is not None
    assert spec.deploy.checks.readiness.http is None


def test_the_runtimes_check_is_left_out_where_its_port_is_not_there() -> None:
    spec = loaded(NO_CODE + "deploy: {network: {ports: [{name: web, container: 9000}]}}\n")
    assert spec.deploy.checks.readiness is None


def test_a_model_in_a_folder_among_the_files_is_not_listed_twice() -> None:
    text = NO_CODE.replace("build: {", "build: {files: [model], ")
    assert loaded(text).build.files == ["model"]


def test_a_runtime_without_a_server_starts_the_program_that_is_its_path() -> None:
    text = NO_CODE.replace("onnx, path: model/digits.onnx", "python, path: server.py")
    spec = loaded(text + "deploy: {network: {ports: [{name: http, container: 8080}]}}\n")
    assert spec.deploy.entrypoint == ["python", "server.py"]
    assert spec.build.files == ["server.py"]


def test_a_program_that_is_called_like_an_option_is_still_a_file() -> None:
    text = NO_CODE.replace("onnx, path: model/digits.onnx", "python, path: -c.py")
    spec = loaded(text + "deploy: {network: {ports: [{name: http, container: 8080}]}}\n")
    assert spec.deploy.entrypoint == ["python", "./-c.py"]


def test_a_runtime_that_serves_models_needs_one() -> None:
    problem = only(NO_CODE.replace(", path: model/digits.onnx", ""))
    assert (problem.path, problem.message) == (
        "build.runtime.path",
        "required: the model that onnx serves, such as model/digits.onnx",
    )


def test_a_model_of_another_kind_is_refused() -> None:
    problem = only(NO_CODE.replace("digits.onnx", "digits.pt"))
    assert (problem.line, problem.column) == (3, 37)
    assert problem.message == "'model/digits.pt' is not allowed for onnx; expected a file that ends in .onnx"


def test_an_unknown_runtime_gets_the_nearest_known_one() -> None:
    problem = only(NO_CODE.replace("kind: onnx", "kind: onxx"))
    assert (problem.path, problem.line, problem.column) == ("build.runtime.kind", 3, 25)
    assert problem.message.startswith("unknown runtime 'onxx'; did you mean 'onnx'?; known: acl, onnx, ")


def test_a_client_leaves_an_unknown_runtime_to_the_server() -> None:
    spec = load_spec(NO_CODE.replace("kind: onnx", "kind: of-this-site").encode())
    assert spec.deploy.entrypoint == []


@pytest.mark.parametrize("kind", load_runtimes())
def test_every_runtime_fills_in_a_command(kind: str) -> None:
    runtime = load_runtimes()[kind]
    path = f"thing{runtime.suffixes[0]}"
    ports = "deploy: {network: {ports: [{name: http, container: 8080}]}}\n"
    profile = next(name for name, profile in load_profiles().items() if kind in profile.engines)
    text = NO_CODE.replace("onnx, path: model/digits.onnx", f"{kind}, path: {path}").replace("x86-cpu", profile)
    spec = loaded(text + ports)
    assert any(path in word for word in spec.deploy.entrypoint)
    assert not any(PLACEHOLDER.search(word) for word in spec.deploy.entrypoint)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runtimes"
    (folder / "lamp").mkdir(parents=True)
    (folder / "lamp.yaml").write_text(
        "name: lamp\ndescription: Serves lamps\nserves_models: true\nsuffixes: [.lamp]\nfiles: [serve.py]\n"
        'entrypoint: [python, /opt/longshore/runtime/serve.py, "{path}", "{port.http}"]\n'
        "ports: [{name: http, container: 8080}]\n"
    )
    (folder / "lamp" / "serve.py").write_text("print('light')\n")
    return folder


def test_a_site_adds_runtimes_in_a_folder(folder: Path) -> None:
    runtimes.use_folder(folder)
    try:
        spec = load_spec(NO_CODE.replace("onnx, path: model/digits.onnx", "lamp, path: a.lamp").encode())
        assert spec.deploy.entrypoint[-2:] == ["a.lamp", "8080"]
        assert runtime_file("lamp", "serve.py") == b"print('light')\n"
        assert "onnx" in load_runtimes()
    finally:
        runtimes.use_folder(None)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("serves_models: true", "serves_model: true", "serves_model: unknown key; did you mean 'serves_models'?"),
        ("[serve.py]", "[other.py]", "files: there is no file other.py in the folder lamp beside it"),
        ("[serve.py]", "[../serve.py]", "files.0: '../serve.py' is not allowed"),
        ("{port.http}", "{port.web}", "ports has none named web"),
        ("{path}", "{model}", "expected no placeholders but {path}, {name} and {port.NAME}"),
        ("name: lamp", "name: light", "name: is 'light'; the file's name says 'lamp'"),
        ("name: lamp", "nam lamp", "cannot be read"),
    ],
)
def test_a_wrong_runtime_file_is_refused_by_file_and_field(folder: Path, old: str, new: str, said: str) -> None:
    file = folder / "lamp.yaml"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(InvalidDefinition) as caught:
        runtimes.use_folder(folder)
    assert "lamp.yaml: " in str(caught.value)
    assert said in str(caught.value)
    assert "lamp" not in load_runtimes()


def test_a_device_is_told_everything_about_a_model_without_code() -> None:
    told = workload_spec(load_spec(NO_CODE.encode()))
    assert [(port.name, port.container_port, port.host_port) for port in told.ports] == [
        ("http", 8080, 0),
        ("grpc", 8081, 0),
    ]
    assert told.readiness.http.path == "/v2/health/ready"
    assert told.entrypoint[1] == "/opt/longshore/runtime/serve.py"
    limited = workload_spec(load_spec((NO_CODE + "deploy: {resources: {cpu: 1.5}}\n").encode()))
    assert dict(limited.environment) == {"OMP_NUM_THREADS": "2"}


def test_a_model_in_a_project_volume_is_no_file_of_the_build_and_is_served_from_there() -> None:
    text = "version: 1\nname: digits\nbuild: {runtime: {kind: onnx, path: /models/a/digits.onnx}}\n"
    text += "deploy: {volumes: [{name: model, dst: /models, project_volume: digits}]}\ntargets: [{profile: x86-cpu}]\n"
    spec = load_spec(text.encode())
    assert spec.build.files == []
    assert "--model=/models/a/digits.onnx" in spec.deploy.entrypoint
    for wrong in (text.replace("dst: /models", "dst: /model"), text.replace(", project_volume: digits", "")):
        with pytest.raises(InvalidSpec, match="is in no project volume"):
            load_spec(wrong.encode())
