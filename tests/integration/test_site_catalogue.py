"""A controller with target profiles and runtimes of its site's own lists them, and takes and renders specs for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.settings import Builds
from longshore.client import Client, project
from longshore.failures import LongshoreError
from tests.support.sync_stack import running_stack

PROFILE = """\
name: lamp-post
description: Lamp posts that see
platform: linux/arm64
base: docker.io/library/python:3.11-slim-bookworm
engines: [python, lamp]
environment: {LAMP: bright}
artifacts: [image]
"""
RUNTIME = """\
name: lamp
description: Serves lamps
serves_models: true
suffixes: [.lamp]
packages: {pypi: ["lamplib>=2,<3"]}
files: [serve.py]
entrypoint: [python, /opt/longshore/runtime/serve.py, "{path}", "--port={port.http}"]
ports: [{name: http, container: 8080, host: auto}]
"""
SPEC = """\
version: 1
name: lamps
build: {runtime: {kind: KIND, path: bright.ENDING}}
targets: [{profile: lamp-post}]
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("catalogue")
    targets, runtimes = folder / "targets", folder / "runtimes"
    targets.mkdir()
    (runtimes / "lamp").mkdir(parents=True)
    (targets / "lamp-post.yaml").write_text(PROFILE)
    (runtimes / "lamp.yaml").write_text(RUNTIME)
    (runtimes / "lamp" / "serve.py").write_text("print('light')\n")
    own = Builds(targets_folder=targets, runtimes_folder=runtimes)
    with running_stack(folder / "stack", own) as stack, stack.client() as made:
        yield made


def spec_file(folder: Path, kind: str, ending: str) -> Path:
    path = folder / "deployment.yml"
    path.write_text(SPEC.replace("KIND", kind).replace("ENDING", ending))
    return path


def test_they_are_listed_beside_ours_and_are_choices_of_the_form(client: Client) -> None:
    profiles = {profile.name: profile for profile in client.list_target_profiles()}
    assert {"lamp-post", "x86-cpu", "jetson-orin"} <= set(profiles)
    runtimes = {runtime.kind: runtime for runtime in client.list_runtimes()}
    assert list(runtimes["lamp"].profiles) == ["lamp-post"]
    form = {field.path: field for field in client.get_build_form()}
    assert "lamp-post" in form["targets[].profile"].choices
    assert "lamp" in form["build.runtime.kind"].choices


def test_a_spec_for_them_is_completed_and_rendered(client: Client, tmp_path: Path) -> None:
    (target,) = client.render_build(spec_file(tmp_path, "lamp", "lamp"), project("alice", "demo"))
    assert (target.key, target.platform) == ("lamp-post", "linux/arm64")
    words = '["python", "/opt/longshore/runtime/serve.py", "bright.lamp", "--port=8080"]'
    assert f"ENTRYPOINT {words}" in target.text
    assert 'LAMP="bright"' in target.text


def test_a_runtime_that_the_profile_does_not_have_is_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(LongshoreError, match="onnx does not run on lamp-post"):
        client.render_build(spec_file(tmp_path, "onnx", "onnx"), project("alice", "demo"))
