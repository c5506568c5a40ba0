"""The secret of a service, from the command line to the file that it reads, and to its end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from longshore.v1 import deployment_pb2
from tests.support.site import PROJECT, Site, fetch, instance_state, running_site, spec_text, status_of

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("deploy-secrets")]

# Answers with what its secret says, and is ready only with one that it knows.
SERVER = """
import http.server, signal, sys
from pathlib import Path

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
token = Path("/run/secrets/token").read_text()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if token.startswith("refused") else 200)
        self.end_headers()
        self.wfile.write(token.encode())

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
FIRST, SECOND, REFUSED = "first-token-of-alice", "second-token-of-alice", "refused-token-of-alice"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("deploy-secrets"), build=False) as made:
        yield made


def spec(site: Site) -> Path:
    """Of the service, whose build needs a secret too."""
    wanted = yaml.safe_load(spec_text("guarded", deadline="5s"))
    wanted["build"] |= {"secrets": ["index"], "steps": ['test "$(wc -c < /run/secrets/index)" -eq 14']}
    wanted["deploy"]["secrets"] = [{"name": "token"}]
    path = site.write(yaml.safe_dump(wanted))
    (path.parent / "server.py").write_text(SERVER)
    return path


async def typed(site: Site, path: Path, *options: str) -> None:
    """`longshore deploy --wait`, which succeeds."""
    command = ["deploy", "-f", str(path), "-u", PROJECT.user_id, "-p", PROJECT.project_id, "--wait", *options]
    ended = await site.longshore(*command)
    assert ended.code == 0, f"{ended.out}{ended.err}\n{site.logs()}"


async def applied(site: Site, path: Path, build_id: str, token: str) -> deployment_pb2.Deployment:
    """A revision whose only news is the value."""
    answer = await site.call(
        site.client.deploy, path, PROJECT, build_id=build_id, secrets={"token": token.encode()}
    )  # fmt: skip
    deployment: deployment_pb2.Deployment = answer.deployment
    return deployment


async def holds(site: Site, *values: str) -> list[str]:
    """Files that have one of the values: of the controller, of the agent, and in the device's memory."""
    folders = [site.folder / "controller", site.folder / "agent", site.folder / "agent.log"]
    patterns = [word for value in values for word in ("-e", value)]
    argv = ["grep", "-rlaF", "--exclude-dir=builder", *patterns, *map(str, folders), "/run/longshore"]
    # On the device, which sees the same files, and a /run of its own. 1: there is none.
    return (await site.device.run("sh", "-c", f"{' '.join(argv)} || test $? -le 2")).split()


async def test_a_service_reads_its_secret_until_it_is_deleted(site: Site) -> None:
    path = spec(site)
    index = path.parent / "index"
    index.write_text("index-of-alice")
    (path.parent / "token").write_text(FIRST)
    await typed(site, path, "--secret", f"index={index}", "--secret", f"token={path.parent / 'token'}")
    found = (await site.call(site.client.find_deployment, PROJECT, "guarded")).deployment
    answer = await site.state(found)
    assert await fetch(answer) == FIRST
    held = await holds(site, FIRST)
    assert [file for file in held if file.startswith("/run/longshore/")], "in memory, where the service sees it"
    assert [file for file in held if file.startswith(str(site.folder / "controller"))] == []
    assert [file for file in held if file.endswith(".log")] == []

    changed = await applied(site, path, found.build_id, SECOND)
    await site.reaches(changed, "READY")
    assert await fetch(await site.state(changed)) == SECOND

    await returns_to_the_value_before(site, path, changed)
    await keeps_its_value_where_none_is_given(site, path, changed)

    await site.delete(changed)
    assert await holds(site, FIRST, SECOND, REFUSED, "index-of-alice") == []
    (row,) = await sealed_rows(site)
    assert row == "0"


async def returns_to_the_value_before(site: Site, path: Path, running: deployment_pb2.Deployment) -> None:
    refused = await applied(site, path, running.build_id, REFUSED)
    answer = await site.reaches(refused, "FAILED", "RolledBack", seconds=120)
    status = status_of(answer)
    assert (answer.deployment.revision, status.revision) == (refused.revision, running.revision)
    assert (instance_state(answer), status.ready) == ("RUNNING", True)
    assert await fetch(answer) == SECOND


async def keeps_its_value_where_none_is_given(site: Site, path: Path, running: deployment_pb2.Deployment) -> None:
    """That of the revision before, which is the one that was refused: so a good one comes first."""
    good = await applied(site, path, running.build_id, SECOND)
    await site.reaches(good, "READY")
    await typed(site, path, "--build", running.build_id)
    answer = await site.state(running)
    assert answer.deployment.revision == good.revision + 1
    assert await fetch(answer) == SECOND


async def sealed_rows(site: Site) -> list[str]:
    """How many revisions the database has values of."""
    query = "select count(*) from revisions where secrets is not null"
    program = f"import sqlite3; print(sqlite3.connect('file:{site.folder}/controller/controller.db?mode=ro', uri=True)"
    process = await asyncio.create_subprocess_exec(
        "python3", "-c", f"{program}.execute('{query}').fetchone()[0])", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().split()
