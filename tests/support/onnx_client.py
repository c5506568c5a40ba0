"""Runs inside an image of the onnx runtime: asks the server both ways, and onnxruntime itself, and prints the answers.

Only what the image has is used. Argument: the model's path.
"""

import json
import os
import sys
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SECONDS = 240
PIXELS = (np.arange(64, dtype=np.float32) % 16).reshape(1, 64)
TENSOR = {"name": "X", "datatype": "FP32", "shape": [1, 64]}


def ready() -> bool:
    try:
        with urllib.request.urlopen("http://127.0.0.1:8080/v2/health/ready", timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def by_rest() -> list[float]:
    body = json.dumps({"inputs": [{**TENSOR, "data": PIXELS.tolist()}]}).encode()
    with urllib.request.urlopen("http://127.0.0.1:8080/v2/models/digits/infer", body, timeout=60) as answer:
        return list(json.load(answer)["outputs"][1]["data"])


def by_grpc() -> list[float]:
    pool = descriptor_pool.DescriptorPool()
    content = Path("/opt/longshore/runtime/open_inference.desc").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
        pool.Add(file)
    request, response = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.ModelInfer{kind}"))
        for kind in ("Request", "Response")
    )
    with grpc.insecure_channel("127.0.0.1:8081") as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        asked = request(model_name="digits", inputs=[TENSOR], raw_input_contents=[PIXELS.tobytes()])
        return list(np.frombuffer(call(asked, timeout=60).raw_output_contents[1], np.float32).tolist())


def main() -> None:
    deadline = time.monotonic() + SECONDS
    while not ready():
        if time.monotonic() > deadline:
            sys.exit("the server did not become ready")
        time.sleep(0.1)
    itself = onnxruntime.InferenceSession(sys.argv[1]).run(["probabilities"], {"X": PIXELS})[0].reshape(-1).tolist()
    machine = os.uname().machine
    print(json.dumps({"rest": by_rest(), "grpc": by_grpc(), "itself": itself, "machine": machine, "user": os.getuid()}))


if __name__ == "__main__":
    main()
