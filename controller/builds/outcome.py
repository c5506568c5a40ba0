"""What a failed step means: reason, message, step and last lines, from what the programs printed. Pure."""

import json
import re
from collections.abc import Callable, Sequence

from controller.builds.model import BuildFailed

MAX_LAST_LINES = 20
MAX_STEP = 300
STEP_LINE = re.compile(r"^(STEP \d+/\d+: )(.*)$")
ERROR_LINE = re.compile(r'^(Error: building at STEP ")(.*)(": while running .*)$')
# What a step of `templates/parts/` says of itself; the command that a user's step is given as its last argument, in an
# announcement and in an error; and the sentence with which a step explains why it cannot go on.
OWN_STEP = re.compile(r"^RUN : '([^']*)'")
USER_STEP = re.compile(r'^RUN (\["/bin/sh", "-c", .*\])$')
FAILED_USER_STEP = re.compile(r'^RUN /bin/sh -c .*?; exec /bin/sh -c "\$1" \S+ (.*)$')
EXPLAINED = re.compile(r"^longshore: (.+)$")
NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
UNREACHABLE = re.compile(
    r"no such host|connection refused|connection reset|connection timed out|i/o timeout|network is unreachable"
    r"|no route to host|temporary failure in name resolution|server misbehaving|TLS handshake timeout|: EOF"
    r"|certificate signed by unknown authority|x509:|received unexpected HTTP status: 5\d\d|StatusCode: 5\d\d"
    r"|Service Unavailable|Bad Gateway|proxyconnect|deadline exceeded|failed to respond",
    re.IGNORECASE,
)
INDEX_UNREACHABLE = re.compile(
    r"Temporary failure resolving|Could not resolve|Could not connect to|Unable to connect to|Connection timed out"
    r"|error sending request|dns error|tcp connect error|Failed to connect|Connection refused|Max retries exceeded"
    r"|operation timed out|invalid peer certificate|certificate verify failed|Network is unreachable"
    r"|Curl error \(\d+\)|Failed to download metadata for repo"
    r"|WARNING: (?:Ignoring|updating and opening|updating|fetching|opening) https?://\S+: (?!UNTRUSTED)"
)
APT_MISSING = re.compile(
    r"E: Unable to locate package (\S+)|E: Package '([^']+)' has no installation candidate"
    r"|E: Version '([^']+)' for '([^']+)' was not found|E: Couldn't find any package by \S+ '([^']+)'"
)
APT_CONFLICT = re.compile(r"have unmet dependencies|you have held broken packages|pkgProblemResolver::Resolve")
PYPI_MISSING = re.compile(
    r"Because (\S+) was not found in the (?:package registry|provided package locations)"
    r"|Because there (?:is|are) no versions? of (\S+)"
    r"|Because only \S+ (?:is|are) available and you require (\S+?),"
    r"|No matching distribution found for (\S+)|Could not find a version that satisfies the requirement (\S+)"
    r"|Because (\S+) has no (?:wheels|usable wheels|source distribution)"
)
# apk and dnf.
OTHERS_MISSING = re.compile(
    r"(\S+) \(no such package\)|No match for argument: (\S+)|nothing provides (\S+)"
    r"|Error: Unable to find a match: (\S+)|No package (\S+) available"
)
OTHERS_CONFLICT = re.compile(r"unable to select packages|conflicting requests|Problem: package \S+ requires")
# What uv says where wheels exist, though not for this platform or Python; and what pip does.
WHEEL_MISSING = re.compile(
    r"[Ww]heels (?:are available )?for `([^`]+)`"
    r"|Because (?:only |all versions of )?(\S+?) (?:has|have) no (?:wheels|usable wheels)(?: with a matching|,| and)"
    r"|A path \((\S+)\) dependency is incompatible with the current platform"
    r"|(\S+\.whl) is not a supported wheel on this platform|(\S+) has no wheels with a matching"
)
# The kernel's end of a process; what a shell, Podman and Python say of it.
KILLED = re.compile(r"exit status 137|^Killed$|signal: killed|MemoryError|Cannot allocate memory|Out of memory")
PYPI_CONFLICT = re.compile(r"No solution found when resolving|ResolutionImpossible|requirements are unsatisfiable")


def build_failure(lines: Sequence[str], returncode: int, platform: str) -> BuildFailed:
    """The failure of a `podman build` that printed these lines and ended with this status."""
    step, output = _failed_step(lines)
    text = " ".join(" ".join(output).split())
    last = tuple(output[-MAX_LAST_LINES:])

    def failed(reason: str, message: str, retryable: bool = False) -> BuildFailed:
        return BuildFailed(reason, message, step=step, last_lines=last, retryable=retryable)

    # Podman ends with the status of the step, also where that is one of a killed process.
    if returncode < 0:
        return failed("BuilderKilled", "podman build was killed on the builder's machine; it is tried again", True)
    if NO_SPACE.search(text):
        return failed("DiskFull", "the builder's disk is full; free space or lower what builds keep", True)
    if "exec format error" in text.lower():
        return failed(
            "EmulationUnavailable",
            f"this machine cannot run programs for {platform}; install qemu-user-static and binfmt-support",
        )
    if explained := next((match[1] for line in output if (match := EXPLAINED.match(line))), None):
        return failed("BaseUnsuitable", explained)
    if found := _package_failure(text, platform, failed):
        return found
    if any(KILLED.search(line) for line in output):
        return failed(
            "OutOfMemory", f"a step was killed, most likely since the builder's memory ran out: {step or 'unknown'}"
        )
    return failed("StepFailed", f"a step of the build failed with status {returncode}: {step or 'before the first'}")


def _package_failure(text: str, platform: str, failed: Callable[..., BuildFailed]) -> BuildFailed | None:
    if INDEX_UNREACHABLE.search(text):
        return failed(
            "PackageIndexUnreachable",
            "a package index cannot be reached from the builder; see its output, check proxy, index and CA settings",
            True,
        )
    if match := APT_MISSING.search(text):
        name = match[4] + "=" + match[3] if match[4] else next(group for group in match.groups() if group)
        return failed(
            "PackageNotFound",
            f"apt has no package {name} for this base on {platform}; correct build.packages.apt or take another "
            "build.base",
        )
    if APT_CONFLICT.search(text):
        return failed("PackageConflict", "the apt packages exclude each other; see the last lines and loosen a version")
    if match := OTHERS_MISSING.search(text):
        name = next(group for group in match.groups() if group).rstrip(",;")
        return failed(
            "PackageNotFound",
            f"there is no package {name} for this base on {platform}; correct build.packages, or take another base",
        )
    if OTHERS_CONFLICT.search(text):
        return failed("PackageConflict", "the packages exclude each other; see the last lines and loosen a version")
    if match := WHEEL_MISSING.search(text):
        name = next(group for group in match.groups() if group).rstrip(",")
        return failed(
            "NoWheelForPlatform",
            f"{name} has no wheel for this Python on {platform}; take another version, or another build.base",
        )
    if match := PYPI_MISSING.search(text):
        name = next(group for group in match.groups() if group).rstrip(",")
        return failed(
            "PackageNotFound",
            f"no package {name} can be had for this Python on {platform}; correct build.packages.pypi",
        )
    if PYPI_CONFLICT.search(text):
        return failed(
            "PackageConflict", "the Python packages exclude each other; see the last lines and loosen a version"
        )
    return None


def push_failure(stderr: str, repository: str) -> BuildFailed:
    """The failure of a `podman push`."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    last = tuple(lines[-MAX_LAST_LINES:])
    cause = lines[-1] if lines else "no output"
    if NO_SPACE.search(stderr):
        return BuildFailed(
            "DiskFull", f"cannot push {repository}: a disk is full: {cause}", last_lines=last, retryable=True
        )
    if re.search(r"unauthorized|denied|authentication required|forbidden|StatusCode: 40[13]", stderr, re.IGNORECASE):
        return BuildFailed(
            "RegistryRefused",
            f"the registry refuses {repository}: {cause}; check the controller's credentials for it",
            last_lines=last,
        )
    if re.search(r"unsupported|StatusCode: 405", stderr):
        return BuildFailed(
            "RegistryReadOnly",
            f"the registry does not take {repository} now: {cause}; it is tried again, it may be freeing space",
            last_lines=last,
            retryable=True,
        )
    if re.search(r"HTTP status: 50[07]|StatusCode: 50[07]", stderr):
        return BuildFailed(
            "RegistryFails",
            f"the registry fails while it takes {repository}: {cause}; it is tried again, see that its disk is not "
            "full, and its log",
            last_lines=last,
            retryable=True,
        )
    return BuildFailed(
        "RegistryUnreachable",
        f"cannot push {repository}: {cause}; it is tried again, see that the registry answers",
        last_lines=last,
        retryable=True,
    )


def _failed_step(lines: Sequence[str]) -> tuple[str, list[str]]:
    """The instruction that failed and what was printed since it began."""
    begin, step = 0, ""
    for number, line in enumerate(lines):
        if match := STEP_LINE.match(line):
            begin, step = number, match[2]
    named = next((match[2] for line in lines if (match := ERROR_LINE.match(line))), None)
    return readable_step(named or step), [readable_line(line) for line in lines[begin:] if not STEP_LINE.match(line)]


def readable_step(step: str) -> str:
    """The instruction without its mechanics, cut to what a table can show."""
    text = " ".join(re.sub(r"^RUN(\s+--mount=\S+)+", "RUN", step).split())
    if match := OWN_STEP.match(text):
        text = f"RUN {match[1]}"
    elif match := USER_STEP.match(text):
        text = f"RUN {json.loads(match[1])[-1]}"
    elif match := FAILED_USER_STEP.match(text):
        text = f"RUN {match[1]}"
    return text if len(text) <= MAX_STEP else text[: MAX_STEP - 1] + "…"


def readable_line(line: str) -> str:
    """A line of `podman build`, with the instruction in it as `readable_step` shows it."""
    if match := STEP_LINE.match(line):
        return match[1] + readable_step(match[2])
    if match := ERROR_LINE.match(line):
        return match[1] + readable_step(match[2]) + match[3]
    return line
