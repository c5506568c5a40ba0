"""What programs print when a step fails, as Podman, apt, uv and pip print it, and what a user is told then."""

import pytest

from controller.builds.log import BuildLog
from controller.builds.outcome import build_failure, push_failure, readable_line, readable_step

APT_STEP = (
    "RUN --mount=type=secret,id=longshore-env     --mount=type=bind,source=packages/apt.txt,target=/run/packages     "
    ": 'apt-get install (2 packages)' packages/apt.txt sha256:12; set -euf;     apt-get install $(cat /run/packages)"
)
# As Podman announces a step that is given as JSON, and as it names the same step in an error.
USER_STEP = (
    'RUN --mount=type=secret,id=a     ["/bin/sh", "-c", ". /x; exec /bin/sh -c \\"$1\\"", "step", '
    '"make --mount=\\"a\\""]'
)
FAILED_USER_STEP = 'RUN /bin/sh -c . /x; exec /bin/sh -c "$1" step make --mount="a"'
UNREACHABLE = ("PackageIndexUnreachable", True)


def failed(*output: str, step: str = APT_STEP) -> tuple[str, str, bool]:
    lines = ["STEP 1/3: FROM base", f"STEP 2/3: {step}", *output]
    lines.append(f'Error: building at STEP "{step}": while running runtime: exit status 100')
    failure = build_failure(lines, 100, "linux/amd64")
    return failure.reason, failure.message, failure.retryable


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("E: Unable to locate package nosuch", "nosuch"),
        ("E: Package 'nosuch' has no installation candidate", "nosuch"),
        ("E: Version '9.9' for 'curl' was not found", "curl=9.9"),
        ("  x No solution found when resolving dependencies: Because nosuch was not found in the package registry and",
         "nosuch"),
        ("  ╰─▶ Because there is no version of numpy==99 and you require numpy==99, we can conclude", "numpy==99"),
        ("  ╰─▶ Because only numpy<=2.4 is available and you require numpy>=99, we can conclude that", "numpy>=99"),
        ("ERROR: No matching distribution found for nosuch", "nosuch"),
    ],
)  # fmt: skip
def test_a_missing_package_is_named(line: str, name: str) -> None:
    reason, message, retryable = failed("Reading package lists...", line)
    assert (reason, retryable) == ("PackageNotFound", False)
    assert f" {name} " in message
    assert "build.packages." in message


@pytest.mark.parametrize(
    ("line", "reason", "retryable"),
    [
        ("E: Unable to correct problems, you have held broken packages.", "PackageConflict", False),
        ("  x No solution found when resolving dependencies:", "PackageConflict", False),
        ("E: Failed to fetch http://x/  Temporary failure resolving 'x'", "PackageIndexUnreachable", True),
        ("error: Failed to fetch: `https://x/` cause: error sending request", "PackageIndexUnreachable", True),
        ("write /x: no space left on device", "DiskFull", True),
        ("exec /bin/sh: exec format error", "EmulationUnavailable", False),
        ("longshore: the base image has no apt-get; take another build.base", "BaseUnsuitable", False),
        ("ERROR: unable to select packages:   curl-1: breaks: world[curl=2]", "PackageConflict", False),
        ("  ╰─▶ Because x==1 has no wheels with a matching platform tag", "NoWheelForPlatform", False),
        ("cause: Because all versions of x have no wheels with a matching platform tag", "NoWheelForPlatform", False),
        ("hint: Wheels are available for `x` (v1.0) on the platform: `win_amd64`", "NoWheelForPlatform", False),
        ("cause: A path (x.whl) dependency is incompatible with the current platform", "NoWheelForPlatform", False),
        ("ERROR: x-1-cp311-win_amd64.whl is not a supported wheel on this platform.", "NoWheelForPlatform", False),
        ("  - Curl error (60): SSL peer certificate was not OK for x", *UNREACHABLE),
        ("Error: Failed to download metadata for repo 'x': Cannot download y", *UNREACHABLE),
        ("WARNING: updating and opening https://x/APKINDEX.tar.gz: DNS: name does not exist", *UNREACHABLE),
        ("WARNING: Ignoring http://x/APKINDEX.tar.gz: temporary error (try again later)", *UNREACHABLE),
        ("Killed", "OutOfMemory", False),
        ("MemoryError", "OutOfMemory", False),
        ("something else", "StepFailed", False),
    ],
)
def test_reasons_tell_what_to_do(line: str, reason: str, retryable: bool) -> None:
    assert (failed(line)[0], failed(line)[2]) == (reason, retryable)


@pytest.mark.parametrize(
    "line",
    [
        "  nosuch (no such package):",
        "No match for argument: nosuch",
        "Error: Unable to find a match: nosuch",
        " - nothing provides nosuch needed by x-1-1.noarch from local",
    ],
)
def test_a_package_that_apk_or_dnf_lacks_is_named(line: str) -> None:
    reason, message, retryable = failed("fetching", line)
    assert (reason, retryable) == ("PackageNotFound", False)
    assert " nosuch " in message


def test_a_builder_that_was_killed_is_tried_again() -> None:
    failure = build_failure(["STEP 1/2: FROM base", "STEP 2/2: RUN make"], -9, "linux/amd64")
    assert (failure.reason, failure.retryable) == ("BuilderKilled", True)


def test_an_index_out_of_reach_is_not_taken_for_a_missing_package() -> None:
    reason, _, _ = failed("Could not resolve 'mirror.example'", "E: Unable to locate package curl")
    assert reason == "PackageIndexUnreachable"


def test_step_and_last_lines_are_those_of_the_failing_step() -> None:
    before = ["STEP 1/9: FROM base", "STEP 2/9: RUN one", "of the first step"]
    output = [f"line {number}" for number in range(50)]
    end = f'Error: building at STEP "{APT_STEP}": while running runtime: exit status 100'
    failure = build_failure([*before, f"STEP 3/9: {APT_STEP}", *output, end], 100, "linux/amd64")
    assert failure.step == "RUN apt-get install (2 packages)"
    assert len(failure.last_lines) == 20
    assert failure.last_lines[0] == "line 31"
    assert failure.last_lines[-1].endswith('": while running runtime: exit status 100')


def test_steps_are_shown_without_their_mechanics() -> None:
    assert readable_line(f"STEP 4/9: {APT_STEP}") == "STEP 4/9: RUN apt-get install (2 packages)"
    assert readable_step(USER_STEP) == readable_step(FAILED_USER_STEP) == 'RUN make --mount="a"'
    assert readable_step("COPY  x y") == "COPY x y"
    assert len(readable_step("RUN " + "x" * 5000)) == 300


@pytest.mark.parametrize(
    ("stderr", "reason", "retryable"),
    [
        ("dial tcp 127.0.0.1:5000: connect: connection refused", "RegistryUnreachable", True),
        ("received unexpected HTTP status: 503 Service Unavailable", "RegistryUnreachable", True),
        ("uploading layer chunked: received unexpected HTTP status: 500 Internal Server Error", "RegistryFails", True),
        ("initiating layer upload to /v2/: StatusCode: 405, Method not allowed", "RegistryReadOnly", True),
        ("unauthorized: authentication required", "RegistryRefused", False),
        ("writing blob: storing blob: no space left on device", "DiskFull", True),
    ],
)
def test_a_failed_push_says_whether_it_is_worth_another_try(stderr: str, reason: str, retryable: bool) -> None:
    failure = push_failure(f"Getting image source signatures\nError: {stderr}\n", "registry:5000/a/b")
    assert (failure.reason, failure.retryable) == (reason, retryable)
    assert "registry:5000/a/b" in failure.message


def test_passwords_are_hidden_in_the_log_and_in_what_explains_a_failure() -> None:
    seen: list[tuple[str, str]] = []
    log = BuildLog(lambda *line: seen.append(line), ("s3cret",))
    log("stderr", "Looking in https://me:s3cret@index/simple")
    assert seen == [("stderr", "Looking in https://me:***@index/simple")]
    assert log.recent() == ["Looking in https://me:***@index/simple"]


def test_images_that_were_there_before_are_not_of_this_build() -> None:
    log = BuildLog(lambda *_: None)
    cached = "ab" * 32
    for text in (f"--> Using cache {cached}", f"--> {cached[:11]}", "--> 0123456789a"):
        log("stdout", text)
    assert log.made_images() == ["0123456789a"]
