"""Older forms of deployment.yml: what is read as what, and what is refused with what comes nearest."""

from typing import Any

import pytest

from controller.builds.targets import load_profiles
from controller.errors import InvalidSpec, Problem
from controller.rpc.spec_warnings import spec_warnings
from controller.spec.dialects.tango import tables
from controller.spec.loader import Reading, load_spec, read_spec, warnings_of
from controller.spec.writing import written
from tests.support.tango_files import OCCURRING, PLAIN, TUPLE, as_file, as_tuple, every_file, nested, with_value
from tests.unit.test_spec_loader import VALID

FILES = every_file()


def reading(values: Any) -> Reading:
    return read_spec(as_file(values).encode(), load_profiles())


def problems(values: Any) -> list[Problem]:
    with pytest.raises(InvalidSpec) as caught:
        reading(values)
    return caught.value.problems


def told(found: Reading) -> dict[str, str]:
    """Warnings by path; of several the last."""
    return {warning.path: warning.message for warning in found.warnings}


def edited(**deploy: Any) -> dict[str, Any]:
    """The plain file with other keys in deploy; None takes one away."""
    changed = {**PLAIN["deploy"], **deploy}
    return {**PLAIN, "deploy": {key: value for key, value in changed.items() if value is not None}}


def outcome(text: str) -> Reading | None:
    try:
        return read_spec(text.encode())
    except InvalidSpec:
        return None


def outcomes(values: Any) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """Warnings of what was read, or what is refused."""
    try:
        return reading(values).warnings, ()
    except InvalidSpec as refusal:
        return (), tuple(refusal.problems)


def test_converted_file_is_the_same_spec_without_warnings() -> None:
    read = [found for text in FILES if (found := outcome(text)) is not None]
    assert len(read) > len(FILES) / 2
    for found in read:
        again = read_spec(written(found).encode())
        assert (again.spec, again.warnings) == (found.spec, ())


def test_file_of_version_1_is_written_as_it_is() -> None:
    found = read_spec(VALID.encode())
    assert found.warnings == ()
    assert written(read_spec(written(found).encode())) == written(found)
    assert load_spec(written(found).encode()) == found.spec


def test_warnings_alone_are_those_of_the_reading() -> None:
    found = reading(PLAIN)
    assert warnings_of(as_file(PLAIN).encode()) == found.warnings
    assert warnings_of(VALID.encode()) == ()


@pytest.mark.parametrize("text", FILES[:3], ids=["plain", "tuple", "nested"])
def test_the_three_shapes_mean_the_same(text: str) -> None:
    assert load_spec(text.encode()) == reading(PLAIN).spec


def test_a_plain_file_is_read_whole() -> None:
    spec = reading(PLAIN).spec
    assert (spec.name, [target.key for target in spec.targets]) == ("yolo", ["x86-cpu"])
    assert spec.build.runtime is not None
    assert spec.build.runtime.kind == "pytorch"
    assert (spec.build.packages.pypi, spec.build.packages.apt) == (["torch>=1.1.0"], ["vim"])
    assert spec.deploy.entrypoint == ["bash", "run.sh", "-p", "opt1"]
    assert [(port.name, port.container, port.host) for port in spec.deploy.network.ports] == [("http", 8080, 8080)]
    assert (spec.optional.nn_file, spec.optional.weight_file) == ("output.py", ["abc.pt"])
    assert spec.build.files == ["."]


@pytest.mark.parametrize("path", OCCURRING, ids=".".join)
def test_each_value_is_read_or_refused_at_its_place_or_at_what_it_contradicts(path: tuple[str, ...]) -> None:
    own = ".".join(path)
    contradicted = {"deploy.type": "build.components.engine", "deploy.resources": "build.accelerator"}
    places = (own, contradicted.get(own, own))
    for value in OCCURRING[path]:
        warnings, refusals = outcomes(with_value(path, value))
        assert bool(warnings) is not bool(refusals)
        assert all(problem.line > 1 and problem.path.startswith(places) for problem in refusals)


@pytest.mark.parametrize(
    ("kind", "accelerator", "engine", "profile"),
    [
        ("PC", "cpu", "pytorch", "x86-cpu"),
        ("pc_server", "gpu", "tensorrt", "x86-cuda"),
        ("PC_Web", "cuda", "pytorch", "x86-cuda"),
        ("K8S", "cpu", "pytorch", "x86-cpu"),
        ("K8S_Jetson_Nano", "gpu", "tensorrt", "jetson-nano"),
        ("jetson agx orin", "cuda", "TensorRT", "jetson-orin"),
        ("Jetson-AGX-Xavier", "gpu", "pytorch", "jetson-xavier"),
        ("Odroid_N2", "opencl", "acl", "odroid-n2"),
        ("ODROID-M1", "npu", "rknn", "odroid-m1"),
        ("Rasberry_Pi5", "cpu", "tflite", "raspberry-pi-5"),
        ("Comma_3X", "cpu", "onnx", "comma-3x"),
        ("compute-session", "cpu", "pytorch", "x86-cpu"),
    ],
)
def test_a_target_by_name_is_its_profile(kind: str, accelerator: str, engine: str, profile: str) -> None:
    values = edited(type=kind)
    values["build"] = {"accelerator": accelerator, "components": {"engine": engine}}
    found = reading(values)
    assert [target.profile for target in found.spec.targets] == [profile]
    assert "target profile" in told(found)["deploy.type"]


@pytest.mark.parametrize(
    ("path", "value", "why", "near"),
    [
        (("deploy", "type"), "Galaxy_S22", "Android app", "Rasberry_Pi5"),
        *((("deploy", "type"), cloud, "public cloud", "PC_Server") for cloud in
          ("Cloud", "KT_cloud", "GCP", "AWS", "gcp-cloudrun", "aws-ecs", "ktc")),
        (("build", "os"), "windows", "agents run on Linux", "ubuntu"),
        (("build", "os"), "android", "not on Android", "linux"),
        (("build", "accelerator"), "npu:rebellion:atom:1", "no target profile serves", "the nearest is cpu"),
        (("build", "accelerator"), "npu", "no target profile serves", "odroid-m1"),
        (("build", "accelerator"), "tpu", "no target profile serves", "the nearest is cpu"),
        (("build", "accelerator"), "gpuu", "is no accelerator", "did you mean 'gpu'?"),
        (("build", "components", "engine"), "tensort", "is no engine", "did you mean 'tensorrt'?"),
        (("deploy", "type"), "jetson_agx_orn", "is no target", "did you mean 'jetson-agx-orin'?"),
        (("build", "architecture"), "x68", "is not known", "did you mean 'x86'?"),
        (("deploy", "resources"), {"atom-max.device": 1}, "no target profile has such an accelerator", "cuda.device"),
        (("deploy", "servce_name"), "x", "unknown key", "did you mean 'service_name'?"),
        (("build", "components", "libz"), ["numpy"], "unknown key", "did you mean 'libs'?"),
        (("build", "achitecture"), "x86", "unknown key", "did you mean 'architecture'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_with_the_reason_and_the_nearest(
    path: tuple[str, ...], value: Any, why: str, near: str
) -> None:
    (problem,) = problems(with_value(path, value))
    assert problem.path.startswith(".".join(path))
    assert problem.line > 1
    assert why in problem.message
    assert near in problem.message


def test_every_refusal_of_a_file_is_told_at_once_at_its_own_place() -> None:
    values = edited(type="AWS", mount=[{"src": "data", "dst": "/x"}], network={"service_container_port": 99999})
    values["build"] = {"os": "android", "components": {"engine": "caffe"}}
    assert [problem.path for problem in problems(values)] == [
        "build.os",
        "build.components.engine",
        "deploy.type",
        "deploy.network.service_container_port",
        "deploy.mount[0].src",
    ]


def test_packages_that_no_index_has_are_left_out_with_a_warning() -> None:
    libs = ["python==3.9", "numpy", "mali-fbdev", "os"]
    custom = {"papi": ["time", "python-math", "flask==1.2.3", "numpy"], "atp": ["vim", "vim"]}
    values = with_value(("build", "components"), {"engine": "pytorch", "libs": libs, "custom_packages": custom})
    found = reading(values)
    assert found.spec.build.packages.pypi == ["numpy", "flask==1.2.3"]
    assert found.spec.build.packages.apt == ["vim"]
    left_out = [warning.path.rpartition(".")[2] for warning in found.warnings if "is left out" in warning.message]
    assert left_out == ["os", "libs[0]", "libs[2]", "libs[3]", "papi[0]", "papi[1]"]


def test_accelerators_in_short_and_long_form_say_how_many() -> None:
    for value in ("gpu:nvidia:a100:2", {"type": "gpu", "vendor": "NVIDIA", "model": "a100", "count": "2"}):
        spec = reading(with_value(("build", "accelerator"), value)).spec
        assert spec.targets[0].profile == "x86-cuda"
        assert spec.build.minimum.accelerators == {"nvidia.com/gpu": 2}
    by_resources = edited(resources={"gpu": 1})
    by_resources["build"] = {"components": {"engine": "pytorch"}}
    assert reading(by_resources).spec.build.minimum.accelerators == {"nvidia.com/gpu": 1}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["run.sh", "-p", "opt1"], ["bash", "run.sh", "-p", "opt1"]),
        ("output.py", ["python", "output.py"]),
        ("python output.py --size 'a b'", ["python", "output.py", "--size", "a b"]),
        (["/bin/bash", "-c"], ["python", "output.py"]),
        (["/bin/bash", "-c", "echo 1"], ["/bin/bash", "-c", "echo 1"]),
        (None, ["python", "output.py"]),
    ],
)
def test_entrypoints_become_commands(given: Any, words: list[str]) -> None:
    assert reading(edited(entrypoint=given)).spec.deploy.entrypoint == words


@pytest.mark.parametrize(
    ("given", "commands"),
    [
        ([["a.py", 1, 2], ["b.py"]], [["python", "a.py", "1", "2"], ["python", "b.py"]]),
        (["a.py"], [["python", "a.py"]]),
        (["a.py", "b.sh"], [["python", "a.py"], ["bash", "b.sh"]]),
        (["a.py", "--fast"], [["python", "a.py", "--fast"]]),
    ],
)
def test_commands_before_the_entrypoint_are_one_or_several(given: Any, commands: list[list[str]]) -> None:
    assert reading(edited(pre_exec=given)).spec.deploy.pre_exec == commands


def test_an_image_without_anything_to_build_in_is_run() -> None:
    image = "registry.example/team/served:1"
    values = {"build": {"image_uri": image, "os": "linux"}, "deploy": edited(entrypoint=None)["deploy"]}
    spec = reading(values).spec
    assert (spec.build.base, spec.build.image, spec.build.files) == (image, None, [])
    made = reading(with_value(("build", "image_uri"), image)).spec.build
    assert (made.base, made.image, made.tags) == (None, "served", ["1"])


def test_a_model_of_onnx_without_a_program_is_served_as_it_is() -> None:
    values = edited(entrypoint=None)
    values["build"] = {"components": {"engine": "onnx"}}
    values["optional"] = {"weight_file": "yolo.onnx"}
    spec = reading(values).spec
    assert spec.build.runtime is not None
    assert (spec.build.runtime.kind, spec.build.runtime.path) == ("onnx", "yolo.onnx")
    values["deploy"]["entrypoint"] = "serve.py"
    own = reading(values).spec
    assert own.build.packages.pypi == ["onnxruntime"]
    assert own.deploy.entrypoint == ["python", "serve.py"]
    values["build"] = {"accelerator": "gpu", "components": {"engine": "onnx", "libs": ["onnxruntime~=1.17"]}}
    assert reading(values).spec.build.packages.pypi == ["onnxruntime~=1.17"]


def test_a_service_without_a_port_is_ready_when_it_runs_and_that_is_told() -> None:
    found = reading(edited(network=None))
    assert found.spec.deploy.checks.readiness is not None
    assert found.spec.deploy.checks.readiness.command is not None
    assert any("as soon as it runs" in warning.message for warning in found.warnings)


def test_a_native_service_is_a_bundle() -> None:
    assert [target.key for target in reading(edited(type="native")).spec.targets] == ["x86-cpu.bundle"]


def test_the_rest_is_in_the_units_of_version_1() -> None:
    values = edited(
        service_name=None, name="My Service", resources={"cpu": "2", "memory": "64m"}, work_dir="yolov3",
        mount=[{"src": "/data", "dst": "/mnt"}],
    )  # fmt: skip
    spec = reading(values).spec
    assert (spec.name, spec.build.workdir) == ("my-service", "/yolov3")
    assert (spec.deploy.resources.cpu, spec.deploy.resources.memory) == (2, 64 * 2**20)
    assert [(mount.src, mount.read_only) for mount in spec.deploy.mounts] == [("/data", False)]
    assert reading(edited(resources={"memory": 1024})).spec.deploy.resources.memory == 2**30


def test_keys_of_version_1_may_stand_beside_older_ones() -> None:
    values = edited(checks={"readiness": {"http": {"port": "http", "path": "/healthz"}}}, restart="on-failure")
    values["targets"] = [{"profile": "jetson-orin"}, {"profile": "x86-cpu", "labels": {"site": "hall-1"}}]
    values["build"] = {**PLAIN["build"], "files": ["output.py"]}
    spec = reading(values).spec
    assert [target.profile for target in spec.targets] == ["jetson-orin", "x86-cpu"]
    assert spec.deploy.restart == "on-failure"
    assert spec.build.files == ["output.py", "abc.pt"]


def test_a_name_that_says_nothing_is_the_callers_or_the_images() -> None:
    values = edited(service_name=None)
    data = as_file(values).encode()
    assert read_spec(data, default_name="Project_7").spec.name == "project-7"
    assert read_spec(data).spec.name == "service"
    values["build"] = {**PLAIN["build"], "image_uri": "team/yolo:1"}
    assert reading(values).spec.name == "yolo"


@pytest.mark.parametrize(
    ("values", "path"),
    [
        (edited(name="other"), "deploy.name"),
        (with_value(("build", "engine"), "tflite"), "build.engine"),
        ({**PLAIN, "build": {**PLAIN["build"], "deploy": {"type": "docker"}}}, "build.deploy"),
        ({**PLAIN, "name": "other"}, "name"),
        (edited(mount=[1]), "deploy.mount[0]"),
        (edited(resources={"gpu": 1}), "build.accelerator"),
        (edited(entrypoint="a 'b"), "deploy.entrypoint"),
        (with_value(("build", "components"), [1]), "build.components"),
    ],
)
def test_what_contradicts_itself_or_has_no_meaning_is_refused_once(values: Any, path: str) -> None:
    assert [problem.path for problem in problems(values) if problem.path == path] == [path]


def test_only_a_list_may_be_a_tuple_and_only_in_an_older_form() -> None:
    warnings = read_spec(as_tuple(PLAIN).encode()).warnings
    assert [warning.path for warning in warnings if "a tuple of Python" in warning.message] == ["deploy"]
    other = as_tuple(PLAIN).replace(TUPLE, "deploy: !!python/object:os.system\n")
    for text in (VALID.replace("[server.py", "!!python/tuple [server.py"), other):
        with pytest.raises(InvalidSpec) as caught:
            load_spec(text.encode())
        assert any("is not allowed; write the plain value" in problem.message for problem in caught.value.problems)


def test_a_file_without_a_version_that_has_nothing_older_is_asked_for_its_version() -> None:
    with pytest.raises(InvalidSpec) as caught:
        load_spec(VALID.replace("version: 1\n", "").encode())
    assert [problem.path for problem in caught.value.problems] == ["version"]


def test_profiles_and_their_accelerators_are_those_that_there_are() -> None:
    profiles = load_profiles()
    families = {"x86": ["x86-cpu", "x86-cuda"], "arm64": ["arm64-cpu"], "armv7": ["armv7-cpu"]}
    named = {*tables.TARGETS.values(), *tables.ARCHITECTURES.values()}
    assert {profile for name in named for profile in families.get(name, [name])} == set(profiles)
    kinds = {name: one.accelerator.kind for name, one in profiles.items() if one.accelerator}
    assert dict(tables.ACCELERATORS) == kinds
    assert set(tables.ENGINES) <= {engine for one in profiles.values() for engine in one.engines}


def test_nested_deploy_is_told() -> None:
    assert "as if it stood outside" in told(reading(nested(PLAIN)))["build.deploy"]


async def test_callers_are_told_the_first_of_very_many_warnings_and_none_of_what_cannot_be_read() -> None:
    libs = with_value(("build", "components"), {"libs": ["time"] * 2000})
    told_to_caller = await spec_warnings(as_file(libs).encode())
    assert len(told_to_caller) == 100
    assert (told_to_caller[0].path, told_to_caller[0].line) == ("", 1)
    assert await spec_warnings(b"[") == await spec_warnings(VALID.encode()) == []


def test_an_older_form_is_read_as_safely_as_any() -> None:
    twice = as_file(PLAIN).replace("  os: ubuntu\n", "  os: ubuntu\n  os: linux\n")
    bomb = "build:\n  os: linux\n  libs0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"  libs{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 20)
    )
    deep = "build: {os: " + "[" * 100
    for text, said in ((twice, "the key is given twice"), (bomb, "at most 100000 values"), (deep, "nested deeper")):
        with pytest.raises(InvalidSpec) as caught:
            load_spec(text.encode())
        assert said in caught.value.problems[0].message
