"""`make demo`: the whole way on one machine, with nothing but what users have: the two commands and HTTP.

Starts a broker, a registry and a controller, enrolls an agent, builds and deploys `examples/digits`, waits until it
is ready, and asks it for predictions of images that the model has never seen.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.local.process import END_WITH_PARENT, ChildProcess, StartFailed
from controller.local.stack import LocalStack
from controller.settings import Builds
from examples.demo_folder import CannotCleanUp, DemoFolder, FolderInUse
from examples.preflight import missing

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits"
PROGRAMS = Path(sys.executable).parent
AGENT = str(PROGRAMS / "longshore-edge-agent")


class DemoFailed(Exception):
    """A step did not do what it should; the text says which."""


class Ending:
    """What a signal does: it cancels the steps, once; where they are held open it lets them go on to their end."""

    def __init__(self) -> None:
        self._steps = asyncio.current_task()
        self._asked = False
        self._let_go: asyncio.Event | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._ask)

    async def hold(self) -> None:
        """Returns once a signal came."""
        self._let_go = asyncio.Event()
        await self._let_go.wait()

    def _ask(self) -> None:
        if self._asked:
            return
        self._asked = True
        say("ending: removing what the demonstration made")
        if self._let_go is not None:
            self._let_go.set()
        elif self._steps is not None:
            self._steps.cancel()


@dataclass(frozen=True)
class Run:
    """One run's folder and the environment in which its commands work. `keep`: it is held open before its end."""

    folder: DemoFolder
    stack: LocalStack
    env: dict[str, str]
    keep: bool
    ending: Ending

    async def longshore(self, *arguments: str, show: bool = True) -> str:
        """Runs the `longshore` command; its output, which is also shown while it comes unless `show` is false."""
        return await _command([str(PROGRAMS / "longshore"), *arguments], self.env, show)


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


async def _command(argv: Sequence[str], env: dict[str, str], show: bool) -> str:
    pipe = None if show else asyncio.subprocess.PIPE
    # In a group of its own: Ctrl-C is for the demonstration, which ends it.
    process = await asyncio.create_subprocess_exec(*END_WITH_PARENT, *argv, env=env, stdout=pipe, process_group=0)
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise DemoFailed(f"{Path(argv[0]).name} {' '.join(argv[1:3])} ended with {process.returncode}")
    return (output or b"").decode()


async def enroll(run: Run) -> None:
    """Makes this machine a device, by a one-time token."""
    answer = await run.longshore(
        "enroll-token", "--name", "demo-device", "--profile", "x86-cpu", "-o", "json", show=False
    )
    token = json.loads(answer)["token"]
    await _command([AGENT, "enroll", token, "--state-dir", str(run.folder.agent)], run.env, show=True)


@contextlib.asynccontextmanager
async def agent(run: Run) -> AsyncIterator[None]:
    """The agent runs inside of the block."""
    argv = [AGENT, "run", "--state-dir", str(run.folder.agent), "--advertise-host", "127.0.0.1"]
    process = ChildProcess(argv, run.folder.agent_log, run.env)
    await process.start(lambda: True)
    try:
        yield
    finally:
        await asyncio.shield(process.stop())


async def endpoint(run: Run) -> str:
    """Where the digits service answers, as the device reported it."""
    instances = json.loads(await run.longshore("instances", "digits", "-o", "json", show=False))
    ready = [instance for instance in instances if instance["status"]["ready"]]
    if not ready:
        raise DemoFailed("no instance is ready")
    where: dict[str, Any] = ready[0]["status"]["endpoints"][0]
    return f"{where['scheme']}://{where['host']}:{where['port']}"


def predict(url: str) -> tuple[int, int, int]:
    """Sends every held-out image; how many there are, were answered, and were answered rightly."""
    labels: dict[str, int] = json.loads((DIGITS / "requests" / "labels.json").read_text())
    answered = right = 0
    for name, digit in sorted(labels.items()):
        request = urllib.request.Request(f"{url}/predict", data=(DIGITS / "requests" / name).read_bytes())
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                found = json.load(answer)
        except OSError as error:
            print(f"  {name}: no answer: {error}")
            continue
        answered += 1
        right += found["digit"] == digit
        sure = max(found["probabilities"])
        mark = "" if found["digit"] == digit else f"   <- it is {digit}"
        print(f"  {name}: {found['digit']} ({sure:4.0%} sure){mark}")
    return len(labels), answered, right


def look_further(run: Run) -> None:
    """Prints commands that work while the demonstration is held open."""
    address, ca = run.stack.settings.public.address, run.stack.ca_file
    say(
        f"look further{', in another terminal' if run.keep else ': `make demo KEEP=1` holds it open for commands like'}"
    )
    print(f"  export LONGSHORE_CONTEXT={run.stack.context_file}")
    for words in ("deployments", "instances", "devices", "events", "logs digits"):
        print(f"  {PROGRAMS / 'longshore'} {words}")
    token = f"$(sed -n 's/^token: //p' {run.stack.context_file})"
    grpcurl = f'grpcurl -cacert {ca} -H "authorization: Bearer {token}"'
    print(f"  {grpcurl} {address} list")
    print(f"  {grpcurl} {address} longshore.v1.DeploymentService/ListInstances")


async def demonstrate(run: Run) -> str:
    """All steps; the last line."""
    say("enroll this machine as a device")
    await enroll(run)
    async with agent(run):
        say("build examples/digits and deploy it (the first time takes minutes: it makes a base image)")
        began = time.monotonic()
        await run.longshore("deploy", "-f", str(DIGITS / "deployment.yml"), "--wait", "--timeout", "20m")
        seconds = time.monotonic() - began
        await run.longshore("instances", "digits")
        say("ask for predictions of images that the model has never seen")
        total, answered, right = await asyncio.to_thread(predict, await endpoint(run))
        look_further(run)
        if run.keep:
            say("held open; end it with Ctrl-C")
            await run.ending.hold()
    if answered < total:
        raise DemoFailed(f"{total - answered} of {total} requests were not answered")
    return f"demo: {answered}/{total} requests answered, accuracy {right / total:.3f}, deploy to ready {seconds:.1f} s"


def beside_proxy(environ: MutableMapping[str, str]) -> None:
    """Afterwards what runs here is asked directly, whatever proxy this machine uses for all else."""
    known = environ.get("no_proxy") or environ.get("NO_PROXY")
    environ["no_proxy"] = environ["NO_PROXY"] = ",".join(filter(None, (known, "127.0.0.1", "localhost")))


async def with_stack(folder: DemoFolder, keep: bool, ending: Ending) -> str:
    say("start a broker, a registry and a controller")
    stack = LocalStack(folder.controller, builds=Builds(base_cache=folder.bases))
    env = {**os.environ, "LONGSHORE_CONTEXT": str(stack.context_file)}
    async with stack:
        print(f"  controller {stack.settings.public.address}, broker {stack.broker.address}, ", end="")
        print(f"registry {stack.registry.address}")
        return await demonstrate(Run(folder, stack, env, keep, ending))


async def main(folder: DemoFolder, keep: bool) -> str:
    """The last line. Whatever happens, nothing of the demonstration is left but bases, and the logs of a failure."""
    with folder.locked():
        ending = Ending()
        if folder.run.exists():
            say("clean up what a run that was killed has left")
            await folder.clean_up()
        try:
            return await with_stack(folder, keep, ending)
        except (DemoFailed, StartFailed):
            folder.keep_logs()
            raise
        finally:
            await folder.clean_up()


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="hold it open until Ctrl-C")
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", help="where it works (default: %(default)s)")
    parser.add_argument("--bases", type=Path, help="where made base images are kept (default: in its folder)")
    chosen = parser.parse_args()
    folder = DemoFolder(chosen.folder.absolute(), chosen.bases)
    if lacking := missing():
        sys.exit(f"demo: {lacking}")
    beside_proxy(os.environ)
    try:
        print(f"\n{asyncio.run(main(folder, chosen.keep))}")
    except asyncio.CancelledError:
        sys.exit("demo: ended before its end; nothing of it is left")
    except (DemoFailed, StartFailed) as error:
        sys.exit(f"demo: {error}\ndemo: the logs of this run are in {folder.logs}")
    except (FolderInUse, CannotCleanUp) as error:
        sys.exit(f"demo: {error}")


if __name__ == "__main__":
    run()
