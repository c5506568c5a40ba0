"""A whole site for end-to-end tests: broker, registry, controller, and a device with Podman and an enrolled agent."""

import asyncio
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from controller.local.stack import LocalStack
from controller.settings import Builds, Devices
from longshore.client import Client, project
from longshore.v1 import deployment_pb2, device_pb2, types_pb2
from tests.support.broker_observer import watch_broker
from tests.support.building import BASE_CACHE
from tests.support.devices import SimulatedDevice

PROJECT = project("alice", "tests")

# A service whose behaviour its environment chooses.
SERVER = """
import http.server, os, signal, socketserver, sys

# Its own would ask the name server for the host's name, which a device without a network waits for.
http.server.HTTPServer.server_bind = socketserver.TCPServer.server_bind
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
mode = os.environ.get("MODE", "ok")
print("mode", mode, flush=True)
if mode == "crash":
    sys.exit("the model file is missing")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/":
            print("asked for", self.path, flush=True)
        self.send_response(503 if mode == "never-ready" else 200)
        self.end_headers()
        self.wfile.write(os.environ.get("ANSWER", "hello").encode())

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
"""


def spec_text(
    name: str,
    *,
    host: Any = "auto",
    deadline: str = "60s",
    profile: str = "x86-cpu",
    artifact: str = "image",
    port: int = 8080,
    **env: str,
) -> str:
    """A deployment.yml of the service; `env` chooses its behaviour, `port` is where it listens."""
    readiness = {"http": {"port": "http", "path": "/"}, "deadline": deadline, "period": "500ms", "timeout": "1s"}
    deploy = {
        "entrypoint": ["python3", "server.py"],
        "environment": env if port == 8080 else {**env, "PORT": str(port)},
        "network": {"ports": [{"name": "http", "container": port, "host": host}]},
        "checks": {"readiness": readiness},
        "stop_grace": "2s",
    }
    build = {"files": ["server.py"]}
    targets = [{"profile": profile, "artifact": artifact}]
    return yaml.safe_dump({"version": 1, "name": name, "build": build, "deploy": deploy, "targets": targets})


@dataclass(frozen=True)
class Ended:
    """A command that ran to its end."""

    code: int
    out: str
    err: str


@dataclass
class Site:
    """One controller side and one device. Blocking client calls run in threads, by `call`."""

    folder: Path
    stack: LocalStack
    device: SimulatedDevice
    client: Client
    build_id: str = ""
    # The module that is the agent's command.
    program: str = "edge_agent.main"
    agent: asyncio.subprocess.Process | None = None
    _files: int = field(default=0)

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(lambda: function(*args, **kwargs))

    async def longshore(self, *arguments: str) -> Ended:
        """The `longshore` command, as an administrator types it."""
        process = await self.start_longshore(*arguments)
        out, err = await process.communicate()
        return Ended(process.returncode or 0, out.decode(), err.decode())

    async def start_longshore(self, *arguments: str) -> asyncio.subprocess.Process:
        """The same, while it runs; its output is to be read."""
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "controller.cli.main", *arguments],
            env={**os.environ, "LONGSHORE_CONTEXT": str(self.stack.context_file)},
            stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe,
        )  # fmt: skip

    def write(self, text: str) -> Path:
        """A deployment.yml with this text beside server.py; its path."""
        self._files += 1
        folder = self.folder / f"spec-{self._files}"
        folder.mkdir()
        (folder / "server.py").write_text(SERVER)
        (folder / "deployment.yml").write_text(text)
        return folder / "deployment.yml"

    async def deploy(
        self, text: str, *, build: bool = False, build_id: str = "", secrets: Mapping[str, bytes] | None = None
    ) -> deployment_pb2.Deployment:
        """Applies a spec, with the site's ready-made artifact unless `build`, or that of `build_id`."""
        path = self.write(text)
        if build:
            answer = await self.call(self.client.deploy, path, PROJECT, files=["server.py"], secrets=secrets)
        else:
            made = build_id or self.build_id
            answer = await self.call(self.client.deploy, path, PROJECT, build_id=made, secrets=secrets)
        deployment: deployment_pb2.Deployment = answer.deployment
        return deployment

    async def delete(self, deployment: deployment_pb2.Deployment) -> None:
        """Afterwards the device has nothing of it."""
        await self.call(self.client.delete, deployment.id)
        await self.reaches(deployment, "DELETED")

    async def build(self, text: str) -> str:
        """Builds what a spec describes; the build's id."""
        built = await self.call(self.client.build, self.write(text), PROJECT, files=["server.py"])
        ended = await self.call(self.client.wait_for_build, built.id, timeout=240)
        assert ended.targets[0].artifact.digest, ended
        return str(built.id)

    async def state(self, deployment: deployment_pb2.Deployment) -> deployment_pb2.GetDeploymentResponse:
        answer: deployment_pb2.GetDeploymentResponse = await self.call(self.client.get_deployment, deployment.id)
        return answer

    async def reaches(
        self, deployment: deployment_pb2.Deployment, state: str, reason: str = "", seconds: float = 90
    ) -> deployment_pb2.GetDeploymentResponse:
        """The deployment once it is in this state (and reason)."""

        def so(answer: deployment_pb2.GetDeploymentResponse) -> bool:
            return state_of(answer) == state and reason in ("", answer.deployment.reason)

        return await self.eventually(deployment, so, seconds, f"{deployment.name} {state} {reason}")

    async def eventually(
        self,
        deployment: deployment_pb2.Deployment,
        holds: Callable[[deployment_pb2.GetDeploymentResponse], bool],
        seconds: float = 90,
        why: str = "",
    ) -> deployment_pb2.GetDeploymentResponse:
        """The deployment once this holds of it."""
        end = time.monotonic() + seconds
        while True:
            answer = await self.state(deployment)
            if holds(answer):
                return answer
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {why}; it is {answer}\n{self.logs()}")
            await asyncio.sleep(0.1)

    async def seen_device(self, holds: Callable[[device_pb2.Device], bool], seconds: float = 60) -> device_pb2.Device:
        """The device as the controller sees it, once this holds of it."""
        end = time.monotonic() + seconds
        while True:
            found: device_pb2.Device = await self.call(self.client.get_device, "edge")
            if holds(found):
                return found
            assert time.monotonic() < end, f"{found}\n{self.logs()}"
            await asyncio.sleep(0.1)

    async def enroll(self, name: str = "edge") -> None:
        token = await self.call(self.client.create_enroll_token, device_name=name, profile="x86-cpu")
        await self.device.run(*self.agent_argv("enroll", token.token))

    async def start_agent(self, env: Mapping[str, str] | None = None, *options: str) -> None:
        """`env` is added to the agent's environment, `options` to its command line."""
        argv = self.device.command(self.agent_argv("run", "--poll-interval", "2", *options))
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = await asyncio.create_subprocess_exec(
                *argv, stdout=log, stderr=log, env={**os.environ, **(env or {})}
            )

    async def stop_agent(self, *, kill: bool = False) -> None:
        """Ends the agent; what it runs goes on."""
        if self.agent is None:
            return
        if kill:
            await self.device.run("pkill", "-KILL", "-f", self.program)
        else:
            await self.device.run("pkill", "-TERM", "-f", self.program)
        await self.agent.wait()
        self.agent = None

    async def containers(self) -> dict[str, str]:
        """Id and start time of what runs on the device, as Podman there says."""
        out = await self.device.run("podman", "ps", "--format", "{{.ID}} {{.StartedAt}}")
        return dict(line.split(" ", 1) for line in out.splitlines() if " " in line)

    def logs(self) -> str:
        """The ends of the logs, for a test that fails."""
        files = (self.folder / "agent.log", self.folder / "controller" / "controller.log")
        return "\n".join(f"--- {f.name}\n{f.read_text()[-3000:]}" for f in files if f.exists())

    def agent_argv(self, *arguments: str) -> list[str]:
        """A command of the agent, to be run on the device."""
        return [sys.executable, "-m", self.program, *arguments, "--state-dir", str(self.folder / "agent")]


def state_of(answer: deployment_pb2.GetDeploymentResponse) -> str:
    return deployment_pb2.DeploymentState.Name(answer.deployment.state).removeprefix("DEPLOYMENT_STATE_")


def status_of(answer: deployment_pb2.GetDeploymentResponse) -> types_pb2.InstanceStatus:
    """The status of the only instance."""
    (instance,) = answer.instances
    return instance.status


def instance_state(answer: deployment_pb2.GetDeploymentResponse) -> str:
    """The state of the only instance; "" while there is none."""
    if not answer.instances:
        return ""
    return types_pb2.InstanceState.Name(status_of(answer).state).removeprefix("INSTANCE_STATE_")


async def fetch(answer: deployment_pb2.GetDeploymentResponse, path: str = "/") -> str:
    """What the only instance answers at the endpoint that its status names; "" where it does not."""
    (where,) = status_of(answer).endpoints

    def get() -> str:
        try:
            with urllib.request.urlopen(f"http://{where.host}:{where.port}{path}", timeout=3) as reply:
                return str(reply.read().decode())
        except OSError:
            return ""

    return await asyncio.to_thread(get)


@asynccontextmanager
async def running_site(
    folder: Path,
    *,
    enroll: bool = True,
    build: bool = True,
    env: Mapping[str, str] | None = None,
    systemd: bool = False,
    devices: Devices | None = None,
    program: str = "edge_agent.main",
    artifact: str = "image",
) -> AsyncIterator[Site]:
    """A site with an enrolled device whose agent runs, and an artifact of the service in its registry. `env` is added
    to the controller's environment; `program` is the agent's module, `artifact` what it runs."""
    async with SimulatedDevice(folder / "device", systemd=systemd) as device:
        builds = Builds(base_cache=BASE_CACHE)
        stack = LocalStack(folder / "controller", host=device.gateway, builds=builds, env=env, devices=devices)
        watch_broker(stack)
        async with stack:
            context = yaml.safe_load(stack.context_file.read_text())
            with Client(context["address"], context["token"], context["ca"]) as client:
                site = Site(folder, stack, device, client, program=program)
                try:
                    if enroll:
                        await site.enroll()
                        await site.start_agent()
                    if build:
                        site.build_id = await site.build(spec_text("service", artifact=artifact))
                    yield site
                finally:
                    await site.stop_agent()
