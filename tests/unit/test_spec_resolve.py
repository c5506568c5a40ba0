"""What agents are told has every default filled in."""

import json

from controller.spec.loader import load_spec
from controller.spec.resolve import workload_spec
from controller.volumes.model import PinnedVolume
from longshore.v1 import types_pb2
from tests.unit.test_spec_loader import VALID, changed


def resolved(text: str) -> types_pb2.WorkloadSpec:
    return workload_spec(load_spec(text.encode()))


def test_ports_default_to_the_same_number_and_auto_lets_the_device_pick() -> None:
    text = changed(
        "{name: http, container: 8080, host: auto}", "{name: http, container: 80}, {name: b, container: 1, host: 9}"
    )
    assert [(port.container_port, port.host_port) for port in resolved(text).ports] == [(80, 80), (1, 9)]
    assert resolved(VALID).ports[0].host_port == 0


def test_readiness_defaults_to_a_connection_to_the_first_port() -> None:
    text = changed("  checks:\n    readiness: {http: {port: http, path: /healthz}, period: 500ms}\n", "")
    check = resolved(text).readiness
    assert check.tcp.port == "http"
    assert (check.period.seconds, check.timeout.seconds, check.deadline.seconds) == (10, 2, 120)
    assert check.failure_threshold == 3


def test_given_check_limits_and_policy_are_kept() -> None:
    spec = resolved(changed("  resources:", "  restart: on-failure\n  stop_grace: 3s\n  resources:"))
    assert (spec.readiness.http.port, spec.readiness.http.path) == ("http", "/healthz")
    assert spec.readiness.period.nanos == 500_000_000
    assert (spec.resources.cpu_millis, spec.resources.memory_bytes, spec.resources.pids) == (1000, 512 * 2**20, 0)
    assert spec.restart == types_pb2.RESTART_POLICY_ON_FAILURE
    assert spec.stop_grace.seconds == 3


def test_command_check_and_tiny_cpu_share_are_kept() -> None:
    text = changed("{http: {port: http, path: /healthz}, period: 500ms}", "{command: {command: [test, -e, /ready]}}")
    spec = resolved(text.replace("cpu: 1,", "cpu: 0.0001,"))
    assert list(spec.readiness.command.command) == ["test", "-e", "/ready"]
    assert spec.resources.cpu_millis == 1


def test_of_the_environment_only_that_of_deploy_travels() -> None:
    spec = resolved(changed("  resources: {cpu: 1,", "  environment: {MODE: fast}\n  resources: {"))
    assert dict(spec.environment) == {"MODE": "fast"}
    assert spec.working_dir == ""


def test_a_share_of_the_cores_is_told_to_numeric_libraries() -> None:
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), "3")
    assert dict(resolved(changed("cpu: 1,", "cpu: 2.5,")).environment) == counts
    wished = changed("cpu: 1,", "").replace("build:", "build:\n  minimum: {cpu: 3}")
    assert dict(resolved(wished).environment) == counts


def test_a_share_below_one_core_is_one_thread() -> None:
    assert resolved(changed("cpu: 1,", "cpu: 0.2,")).environment["OMP_NUM_THREADS"] == "1"


def test_numbers_of_threads_that_a_user_sets_stay() -> None:
    text = changed("PRECISION: 1.10", "NPROC: 7").replace(
        "  resources:", "  environment: {OMP_NUM_THREADS: 4}\n  resources:"
    )
    environment = dict(resolved(text).environment)
    assert environment == {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def test_commands_before_the_entrypoint_are_part_of_what_starts() -> None:
    spec = resolved(changed("  network:", "  pre_exec: [[python, warm_up.py]]\n  network:"))
    assert spec.entrypoint[:2] == ["/bin/sh", "-c"]
    assert spec.entrypoint[-2:] == ["python", "server.py"]


def test_devices_by_cdi_travel_with_the_workload() -> None:
    told = workload_spec(load_spec(VALID.encode()), ("nvidia.com/gpu=all",))
    assert list(told.devices) == ["nvidia.com/gpu=all"]


def test_an_inference_check_is_told_with_its_sample_as_it_goes_over_the_wire() -> None:
    sample = "port: http, path: /infer, request: {x: [1, 2.50]}, expect: {digit: 7}, tolerance: 0.1, latency: 200ms"
    given = f"{{inference: {{{sample}}}}}"
    check = resolved(changed("{http: {port: http, path: /healthz}, period: 500ms}", given)).readiness.inference
    assert (check.port, check.path, check.content_type) == ("http", "/infer", "application/json")
    assert (json.loads(check.request), json.loads(check.expect)) == ({"x": [1, 2.5]}, {"digit": 7})
    assert (check.tolerance, check.latency.nanos) == (0.1, 200_000_000)


def test_a_sample_of_bytes_is_sent_as_they_are() -> None:
    given = "{inference: {port: http, path: /, request_bytes: iVBORw==, content_type: image/png, expect: {}}}"
    check = resolved(changed("{http: {port: http, path: /healthz}, period: 500ms}", given)).readiness.inference
    assert (check.request, check.content_type) == (b"\x89PNG", "image/png")


def test_volumes_allowances_liveness_and_way_to_update_are_told() -> None:
    more = (
        "  volumes: [{name: data, dst: /data}, {name: models, dst: /models, read_only: true}]\n"
        "  allow: [writable-root, CAP_SYS_NICE]\n  update: stop-first\n  resources:"
    )
    ready = "readiness: {http: {port: http, path: /healthz}, period: 500ms}"
    live = f"{ready}\n    liveness: {{tcp: {{port: http}}, failure_threshold: 5}}"
    text = changed("  resources:", more)
    text = text.replace(ready, live)
    spec = resolved(text.replace("cpu: 1,", "cpu: 1, shared_memory: 64MiB, cpu_set: 0-1,"))
    assert [(v.name, v.target, v.read_only) for v in spec.volumes] == [
        ("data", "/data", False),
        ("models", "/models", True),
    ]
    assert list(spec.allow) == ["CAP_SYS_NICE", "writable-root"]
    assert spec.update == types_pb2.UPDATE_STRATEGY_STOP_FIRST
    assert (spec.liveness.tcp.port, spec.liveness.failure_threshold) == ("http", 5)
    assert (spec.resources.shared_memory_bytes, spec.resources.cpu_set) == (64 * 2**20, "0-1")


def test_project_volumes_are_told_with_the_version_that_was_chosen() -> None:
    more = "  volumes: [{name: data, dst: /data}, {name: model, dst: /models, project_volume: digits}]\n"
    digest = f"sha256:{'a' * 64}"
    pinned = [PinnedVolume("model", "digits", "registry/alice/volumes/digits", digest, 7)]
    spec = workload_spec(load_spec(changed("  resources:", f"{more}  resources:").encode()), (), pinned)
    assert [volume.name for volume in spec.volumes] == ["data"]
    (told,) = spec.project_volumes
    assert (told.name, told.target, told.repository, told.digest, told.size_bytes) == (
        "model", "/models", "registry/alice/volumes/digits", digest, 7,
    )  # fmt: skip


def test_what_is_not_given_is_safe() -> None:
    spec = resolved(VALID)
    assert (list(spec.allow), spec.HasField("liveness"), spec.update) == ([], False, types_pb2.UPDATE_STRATEGY_AUTO)


def test_an_image_that_was_built_to_run_as_root_may_do_so() -> None:
    assert list(resolved(changed("build:\n", "build:\n  allow_root: true\n")).allow) == ["root"]


def test_secrets_are_told_with_their_places_and_without_contents() -> None:
    text = changed("  resources:", "  secrets: [{name: token}, {name: key, dst: /etc/key}]\n  resources:")
    assert [(each.name, each.target, each.content) for each in resolved(text).secrets] == [
        ("token", "/run/secrets/token", b""),
        ("key", "/etc/key", b""),
    ]
