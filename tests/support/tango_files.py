"""Files as TANGO's writers make them: a whole one, and each key with every value that occurs."""

import copy
from typing import Any

import yaml

# For each key the values that occur in the wild, by its path.
OCCURRING: dict[tuple[str, ...], list[Any]] = {
    ("build", "architecture"): ["x86", "arm", "linux/amd64", "kuberentes "],
    ("build", "accelerator"): [
        "cpu", "gpu", "cuda", "opencl", "npu", "npu:rebellion:atom:1",
        {"type": "gpu", "vendor": "nvidia", "model": "a100", "count": 1, "shares": 0.5}, {"type": "tpu"},
    ],
    ("build", "os"): ["ubuntu", "ubuntu20.04", "linux", "windows", "android"],
    ("build", "image_uri"): ["us-docker.pkg.dev/team/yolo:v1", "yolo"],
    ("build", "target_name"): ["registry.example:5000/team/yolo@sha256:" + "a" * 64],
    ("build", "engine"): ["pytorch"],
    ("build", "components", "engine"): [
        "pytorch", "tensorrt", "TensorRT", "tflite", "onnx", "openvino", "tvm", "acl", "rknn",
    ],
    ("build", "components", "libs"): [["python==3.9", "torch>=1.1.0"], ["mali-fbdev"]],
    ("build", "components", "custom_packages"): [
        {"apt": ["vim"], "pypi": ["flask==1.2.3"]}, {"atp": ["vim", "hello"], "papi": ["time", "python-math", "numpy"]},
        {"apt": None, "pypi": []},
    ],
    ("deploy", "type"): [
        "docker", "native", "gcp-cloudrun", "aws-ecs", "ktc", "compute-session", "Odroid-M1", "jetson_agx_orin",
        "pc_server", "Cloud", "K8S", "K8S_Jetson_Nano", "PC_Web", "PC", "PC_Server", "Jetson_AGX_Orin",
        "Jetson_AGX_Xavier", "Jetson_Nano", "Odroid_N2", "Odroid_M1", "Rasberry_Pi5", "Comma_3X", "Galaxy_S22",
        "Galaxy_S23", "KT_cloud", "GCP", "AWS",
    ],
    ("deploy", "service_name"): ["hello", "Hello World"],
    ("deploy", "name"): ["hello"],
    ("deploy", "work_dir"): ["/workspace", ".", "/yolov3"],
    ("deploy", "workdir"): ["/workspace"],
    ("build", "workdir"): ["/yolov3"],
    ("deploy", "pre_exec"): [[["tensorrt-converter.py", 1, 2], ["hello.py"]], ["tensorrt-converter.py"]],
    ("deploy", "entrypoint"): [["run.sh", "-p", "opt1"], ["/bin/bash", "-c"], "output.py", ["output.py"]],
    ("deploy", "resources"): [{"cpu": 4, "memory": 1024, "gpu": 0}, {"gpu": 1}, {"atom-max.device": 1}],
    ("deploy", "network"): [
        {"service_host_ip": "", "service_host_port": "8080", "service_container_port": "80"},
        {"service_host_ip": "None", "service_host_port": 8080, "service_container_port": 80},
        {"service_host_ip": "10.0.0.1", "service_host_port": 8080},
    ],
    ("deploy", "k8s"): [{"nfsip": "10.0.0.1", "nfspath": "/tango"}, {"nfs_ip": "10.0.0.1", "nfs_path": "/tango"}],
    ("deploy", "mount"): [[{"src": "/data", "dst": "/mnt"}]],
    ("optional", "nn_file"): ["output.py"],
    ("optional", "annotation_file"): ["coco.dat"],
    ("optional", "model_file"): ["labelmap.yaml"],
    ("optional", "weight_file"): ["abc.pt", ["yolov7.mod", "yolov7.param"], "model.onnx"],
}  # fmt: skip
PLAIN: dict[str, Any] = {
    "build": {
        "architecture": "x86",
        "accelerator": "cpu",
        "os": "ubuntu",
        "components": {"engine": "pytorch", "libs": ["torch>=1.1.0"], "custom_packages": {"apt": ["vim"]}},
    },
    "deploy": {
        "type": "docker",
        "service_name": "yolo",
        "entrypoint": ["run.sh", "-p", "opt1"],
        "network": {"service_host_ip": None, "service_host_port": 8080, "service_container_port": 8080},
    },
    "optional": {"nn_file": "output.py", "weight_file": "abc.pt"},
}
# The old generator's way: deploy as the one entry of a tuple.
TUPLE = "deploy: !!python/tuple\n"


def with_value(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The plain file with one value set."""
    made = copy.deepcopy(PLAIN)
    here = made
    for part in path[:-1]:
        here = here.setdefault(part, {})
    here[path[-1]] = copy.deepcopy(value)
    return made


def as_file(values: Any) -> str:
    return str(yaml.safe_dump(values, sort_keys=False))


def as_tuple(values: dict[str, Any]) -> str:
    """With deploy as the old generator wrote it."""
    text = as_file({**values, "deploy": [values["deploy"]]})
    return text.replace("deploy:\n", TUPLE)


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """With deploy inside of build."""
    return {"build": {**values["build"], "deploy": values["deploy"]}, "optional": values["optional"]}


def every_file() -> list[str]:
    """The plain file in its three shapes, and each with every value that occurs."""
    files = [as_file(PLAIN), as_tuple(PLAIN), as_file(nested(PLAIN))]
    for path, values in OCCURRING.items():
        for value in values:
            made = with_value(path, value)
            files += [as_file(made), as_tuple(made), as_file(nested(made))]
    return files
