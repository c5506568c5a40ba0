"""The digits example: its server, started as it is in a container, answers real requests."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from controller.spec.loader import load_spec
from examples.digits.server import BadImage, read_image
from tests.support.waiting import eventually

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits"
REQUESTS = EXAMPLE / "requests"


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    environment = {**os.environ, "PORT": "0"}
    command = [sys.executable, str(EXAMPLE / "server.py")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            port = process.stdout.readline().rsplit(" ", 1)[1].strip()
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def get_status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def post(url: str, body: bytes, content_type: str = "image/png") -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_server_recognises_the_held_out_digits_and_ends_on_term(server: tuple[subprocess.Popen[str], str]) -> None:
    process, url = server
    eventually(lambda: get_status(f"{url}/healthz") == 200, seconds=30)
    labels: dict[str, int] = json.loads((REQUESTS / "labels.json").read_text())
    answers = {name: post(f"{url}/predict", (REQUESTS / name).read_bytes()) for name in labels}
    assert {status for status, _ in answers.values()} == {200}
    right = sum(answers[name][1]["digit"] == label for name, label in labels.items())
    assert right >= 0.9 * len(labels)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_server_refuses_what_is_no_image_and_goes_on(server: tuple[subprocess.Popen[str], str]) -> None:
    _, url = server
    eventually(lambda: get_status(f"{url}/healthz") == 200, seconds=30)
    assert post(f"{url}/predict", b"no image")[0] == 400
    assert get_status(f"{url}/elsewhere") == 404
    status, answer = post(f"{url}/predict", json.dumps({"pixels": [0] * 64}).encode(), "application/json")
    assert status == 200
    assert isinstance(answer["digit"], int)


def test_png_and_numbers_of_the_same_image_are_read_alike() -> None:
    image = read_image("image/png", (REQUESTS / "00.png").read_bytes())
    numbers = read_image("application/json", json.dumps({"pixels": image.tolist()}).encode())
    assert np.array_equal(image, numbers)
    assert image.max() > 100


@pytest.mark.parametrize("body", [b'{"pixels": [1, 2]}', b'{"pixels": "x"}', b"[]", b'{"pixels": [[NaN]]}', b"{"])
def test_json_that_is_no_image_is_refused(body: bytes) -> None:
    with pytest.raises(BadImage):
        read_image("application/json", body)


def test_truncated_png_is_refused() -> None:
    whole = (REQUESTS / "00.png").read_bytes()
    for length in range(0, len(whole) - 24, 7):
        with pytest.raises(BadImage):
            read_image("image/png", whole[:length])


def test_deployment_file_of_the_example_is_valid_and_its_files_exist() -> None:
    spec = load_spec((EXAMPLE / "deployment.yml").read_bytes())
    assert spec.name == "digits"
    assert all((EXAMPLE / name).is_file() for name in spec.build.files)
