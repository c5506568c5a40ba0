"""The onnx runtime's server, started as in an image, answers as onnxruntime itself does, and refuses with a reason."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest
from aiohttp.test_utils import TestClient, TestServer
from onnx import TensorProto, helper, save_model

from templates.runtimes.onnx.rest import application
from templates.runtimes.onnx.served import Served
from tests.support.inference import DIGITS, RUNTIME, Serving, command, serving

PIXELS = (np.arange(64, dtype=np.float32) % 16).reshape(1, 64)
INPUT = {"name": "X", "datatype": "FP32", "shape": [1, 64], "data": PIXELS.reshape(-1).tolist()}
INFER = "/v2/models/digits/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("onnx")) as running:
        yield running


@pytest.fixture(scope="module")
def expected() -> list[Any]:
    """Label and probabilities by onnxruntime itself."""
    return list(onnxruntime.InferenceSession(str(DIGITS)).run(None, {"X": PIXELS}))


def refusal(server: Serving, **request: Any) -> str:
    """What the server says of a request that it takes for wrong, over REST."""
    status, answer = server.infer(**request)
    assert status == 400
    return str(answer["error"])


def test_rest_answers_as_onnxruntime_does(server: Serving, expected: list[Any]) -> None:
    status, answer = server.infer(id="one", inputs=[INPUT])
    assert (status, answer["id"], answer["model_name"], answer["model_version"]) == (200, "one", "digits", "1")
    label, probabilities = answer["outputs"]
    assert (label["name"], label["datatype"], label["shape"], label["data"]) == ("label", "INT64", [1], expected[0])
    assert probabilities["shape"] == [1, 10]
    assert np.array_equal(np.array(probabilities["data"], np.float32), expected[1].reshape(-1))


def test_rest_takes_nested_data_and_gives_the_outputs_that_are_asked_for(server: Serving, expected: list[Any]) -> None:
    request = {"inputs": [{**INPUT, "data": PIXELS.tolist()}], "outputs": [{"name": "label"}]}
    _, answer = server.infer(**request)
    assert [output["data"] for output in answer["outputs"]] == [expected[0].tolist()]


def test_rest_takes_and_gives_tensors_in_binary(server: Serving, expected: list[Any]) -> None:
    described = {"name": "X", "datatype": "FP32", "shape": [1, 64], "parameters": {"binary_data_size": 256}}
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}]
    header = json.dumps({"inputs": [described], "outputs": outputs}).encode()
    sized = {"Inference-Header-Content-Length": str(len(header))}
    status, answer = server.post(INFER, header + PIXELS.tobytes(), sized)
    assert status == 200
    end = answer.rindex(b"}") + 1
    probabilities, label = json.loads(answer[:end])["outputs"]
    assert probabilities["parameters"] == {"binary_data_size": 40}
    assert np.array_equal(np.frombuffer(answer[end:], np.float32), expected[1].reshape(-1))
    assert label["data"] == expected[0].tolist()


def test_grpc_answers_as_onnxruntime_does(server: Serving, expected: list[Any]) -> None:
    tensor = {**INPUT, "contents": {"fp32_contents": PIXELS.reshape(-1)}}
    del tensor["data"]
    answer = server.call("ModelInfer", model_name="digits", id="one", inputs=[tensor])
    assert (answer.id, answer.model_name, answer.model_version) == ("one", "digits", "1")
    assert list(answer.outputs[0].contents.int64_contents) == expected[0].tolist()
    assert np.array_equal(np.array(answer.outputs[1].contents.fp32_contents, np.float32), expected[1].reshape(-1))


def test_grpc_takes_and_gives_raw_tensors(server: Serving, expected: list[Any]) -> None:
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, 64]}
    answer = server.call("ModelInfer", model_name="digits", inputs=[tensor], raw_input_contents=[PIXELS.tobytes()])
    assert [list(output.shape) for output in answer.outputs] == [[1], [1, 10]]
    assert answer.raw_output_contents[1] == expected[1].tobytes()


def test_health_and_metadata_are_told_both_ways(server: Serving) -> None:
    assert server.get("/v2/health/live") == (200, {"live": True})
    assert server.get("/v2/health/ready") == (200, {"ready": True})
    assert server.get("/v2/models/digits/versions/1/ready")[0] == 200
    assert server.call("ServerLive").live
    assert server.call("ServerReady").ready
    assert server.call("ModelReady", name="digits").ready
    status, model = server.get("/v2/models/digits")
    assert (status, model["inputs"]) == (200, [{"name": "X", "datatype": "FP32", "shape": [-1, 64]}])
    told = server.call("ModelMetadata", name="digits")
    assert (told.platform, list(told.versions)) == (model["platform"], model["versions"])
    assert [(node.name, node.datatype, list(node.shape)) for node in told.outputs] == [
        (node["name"], node["datatype"], node["shape"]) for node in model["outputs"]
    ]
    assert server.get("/v2")[1]["extensions"] == list(server.call("ServerMetadata").extensions)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "Y"}, "the model has no input 'Y'; it takes X"),
        ({"datatype": "FP64"}, "the input 'X' is FP64; the model takes FP32"),
        ({"datatype": "FLOAT"}, "the datatype of 'X' is 'FLOAT'; expected one of BOOL, UINT8"),
        ({"shape": [1, 63]}, "'X' has 64 elements; its shape [1, 63] means 63"),
        ({"shape": [64]}, "the input 'X' has the shape [64]; the model takes [-1, 64]"),
        ({"shape": [-1, 64]}, "expected the shape of 'X' to be a list of whole numbers"),
        ({"shape": [2**31]}, "expected the shape of 'X' to be a list of whole numbers"),
        ({"data": ["1"] * 64}, "the data of 'X' is not FP32"),
        ({"data": [None] * 64}, "the data of 'X' is not FP32"),
        ({"data": [[1, 2], [3]]}, "the data of 'X' is no array of FP32"),
        ({"data": None}, "the input 'X' has no data; expected a list"),
        ({"parameters": {"binary_data_size": 256}}, "binary_data_size of 'X' is 256, and 0 bytes are left"),
    ],
)
def test_a_wrong_input_is_refused_by_name(server: Serving, change: dict[str, Any], said: str) -> None:
    assert said in refusal(server, inputs=[{**INPUT, **change}])


def test_a_wrong_request_is_refused_with_what_is_expected(server: Serving) -> None:
    assert "the input 'X' is missing: FP32 [-1, 64]" in refusal(server, inputs=[])
    assert "an input is given twice" in refusal(server, inputs=[INPUT, INPUT])
    assert "the model has no output 'Z'; it has label, probab" in refusal(
        server, inputs=[INPUT], outputs=[{"name": "Z"}]
    )
    assert "expected 'inputs' to be a list of objects" in refusal(server, inputs=7)
    status, answer = server.post(INFER, b"{")
    assert (status, answer["error"][:21]) == (400, "the body is no JSON: ")
    status, answer = server.post(INFER, b"[" * 100_000)
    assert status == 400
    assert server.post(INFER, b"{}", {"Inference-Header-Content-Length": "9"})[0] == 400
    assert server.get("/v2/health/ready")[0] == 200


def test_another_model_version_or_path_is_not_found(server: Serving) -> None:
    assert server.get("/v2/models/other") == (404, {"error": "there is no model 'other'; 'digits' is served"})
    assert server.get("/v2/models/digits/versions/2")[0] == 404
    assert server.get("/elsewhere")[0] == 404
    with pytest.raises(grpc.RpcError) as caught:
        server.call("ModelMetadata", name="other")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"inputs": [{"name": "X", "datatype": "FP64", "shape": [0, 64]}]}, "the model takes FP32"),
        ({"inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 64]}]}, "has a negative size"),
        ({"inputs": [], "raw_input_contents": [b"1"]}, "there are 0 inputs, and 1 raw_input_contents"),
        (
            {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 64]}], "raw_input_contents": [b"123"]},
            "has 3 bytes, no multiple of 4",
        ),
        ({"inputs": [{"name": "X", "datatype": "FP16", "shape": [1, 64]}]}, "comes in raw_input_contents only"),
    ],
)
def test_grpc_refuses_with_the_same_reasons(server: Serving, request_: dict[str, Any], said: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.call("ModelInfer", model_name="digits", **request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in str(caught.value.details())


async def test_nothing_is_ready_before_the_model_is_loaded() -> None:
    served = Served("digits", 1)
    async with TestClient(TestServer(application(served, 2**20))) as client:
        assert (await client.get("/v2/health/live")).status == 200
        for path in ("/v2/health/ready", "/v2/models/digits/ready", "/v2/models/digits"):
            assert (await client.get(path)).status == 503
        answer = await client.post(INFER, json={"inputs": [INPUT]})
        assert (answer.status, await answer.json()) == (503, {"error": "the model 'digits' is being loaded"})
        await served.load(DIGITS)
        assert (await client.get("/v2/health/ready")).status == 200
    served.close()


async def test_a_request_that_is_too_large_is_refused() -> None:
    served = Served("digits", 1)
    async with TestClient(TestServer(application(served, 1000))) as client:
        answer = await client.post(INFER, data=b"x" * 2000)
        assert answer.status == 413
        assert "1000" in (await answer.json())["error"]
    served.close()


@pytest.mark.parametrize(
    ("content", "said"), [(b"no model", "onnxruntime cannot load it"), (None, "there is no such file")]
)
def test_a_model_that_cannot_be_loaded_ends_the_server_with_the_reason(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    ended = subprocess.run(command(tmp_path, tmp_path / "model.onnx"), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert f"cannot serve: {tmp_path}/model.onnx: {said}" in ended.stdout
    assert "Traceback" not in ended.stderr


def test_text_goes_in_and_comes_out(tmp_path: Path) -> None:
    text = [helper.make_tensor_value_info(name, TensorProto.STRING, ["N"]) for name in ("X", "Y")]
    graph = helper.make_graph([helper.make_node("Identity", ["X"], ["Y"])], "echo", text[:1], text[1:])
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with serving(tmp_path, tmp_path / "m.onnx") as server:
        words = ["grüße", "", "two words"]
        sent = {"name": "X", "datatype": "BYTES", "shape": [3]}
        _, answer = server.infer(inputs=[{**sent, "data": words}])
        assert answer["outputs"][0]["data"] == words
        contents = {"bytes_contents": [word.encode() for word in words]}
        told = server.call("ModelInfer", model_name="digits", inputs=[{**sent, "contents": contents}])
        assert list(told.outputs[0].contents.bytes_contents) == contents["bytes_contents"]
        assert "is not BYTES" in refusal(server, inputs=[{**sent, "data": [1, 2, 3]}])


def test_the_description_of_the_protocol_is_that_of_its_proto(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.desc"
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{RUNTIME}", f"--descriptor_set_out={fresh}"]
    subprocess.run([*protoc, "open_inference.proto"], check=True)
    assert fresh.read_bytes() == (RUNTIME / "open_inference.desc").read_bytes()
