"""From the moment at which a step of a real build prints a line to its receipt by a client over gRPC, with one follower
and while others follow too. Medians and 99th percentiles in milliseconds."""

import concurrent.futures
import statistics
import tempfile
import time
from pathlib import Path

from controller.settings import Builds
from longshore.client import Client, project
from longshore.v1 import build_pb2
from tests.support.building import BASE_CACHE
from tests.support.sync_stack import SyncStack, running_stack

PROJECT = project("alice", "lag")
LINES, EVERY = 200, 0.05
# How many clients follow the same log at a time.
FOLLOWERS = (1, 20)
# Words that the step's command does not have, which Podman shows before it runs.
MARK = "printed-at-"
STEP = (
    "import time; mark = 'printed' + '-at-'; "
    f"[(print(f'{{mark}}{{time.time():.6f}}', flush=True), time.sleep({EVERY})) for _ in range({LINES})]"
)
SPEC = """\
version: 1
name: lag
build: {{steps: ["python3 -c \\"{step}\\" #{number}"], push: false}}
deploy: {{entrypoint: [python3], network: {{ports: [{{name: http, container: 8080}}]}}}}
targets: [{{profile: x86-cpu}}]
"""


def main() -> str:
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as name:
        folder = Path(name)
        with running_stack(folder / "stack", Builds(base_cache=BASE_CACHE)) as stack:
            found = [_measure(stack, folder, followers) for followers in FOLLOWERS]
    figures = " ".join(
        f"p50_ms_{followers}={_percentile(lags, 50):.1f} p99_ms_{followers}={_percentile(lags, 99):.1f}"
        for followers, lags in zip(FOLLOWERS, found, strict=True)
    )
    return f"log_lag: {figures} lines={LINES} (print in a RUN step to receipt over gRPC, by number of followers)"


def _measure(stack: SyncStack, folder: Path, followers: int) -> list[float]:
    path = folder / "deployment.yml"
    path.write_text(SPEC.format(step=STEP, number=followers))
    with stack.client() as client:
        build = client.build(path, PROJECT, no_cache=True)
    with concurrent.futures.ThreadPoolExecutor(followers) as pool:
        found = list(pool.map(lambda _: _follow(stack, build.id), range(followers)))
    lags = [lag for one in found for lag in one]
    if len(lags) != followers * LINES:
        raise RuntimeError(f"{len(lags)} lines were received in place of {followers * LINES}")
    print(f"log_lag: {followers} followers: median {_percentile(lags, 50):.1f} ms, most {max(lags):.1f} ms", flush=True)
    return lags


def _follow(stack: SyncStack, build_id: str) -> list[float]:
    with stack.client() as client:
        lags = [
            (time.time() - float(answer.line.text.removeprefix(MARK))) * 1000
            for answer in client.read_build_log(build_id, follow=True)
            if answer.line.text.startswith(MARK)
        ]
        _check(client, build_id)
    return lags


def _check(client: Client, build_id: str) -> None:
    build = client.get_build(build_id)
    if build.state != build_pb2.BUILD_STATE_SUCCEEDED:
        raise RuntimeError(f"the build did not succeed: {build}")


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
