"""A repository of small rpm packages behind TLS, and a base whose dnf knows no other; `asked` counts requests."""

import shutil
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from controller.pki import CertificateAuthority
from tests.support.building import SMALL_BASE, Workshop

SPEC = """\
Name: {name}
Version: {version}
Release: 1
Summary: a sample
License: MIT
BuildArch: noarch
AutoReq: no
{more}
%description
A sample.
%install
mkdir -p %{{buildroot}}/usr/bin %{{buildroot}}/usr/share/doc/{name}
{install}
echo read me > %{{buildroot}}/usr/share/doc/{name}/README
%files
/usr/bin/{name}
%doc /usr/share/doc/{name}
"""
PROGRAM = "%{{buildroot}}/usr/bin/{name}"
SAYS = f"printf '#!/bin/sh\\necho {{name}} {{version}}\\n' > {PROGRAM}; chmod 755 {PROGRAM}"
# Name, version, further fields, and how what it installs is made.
PACKAGES = (
    ("greeting", "1.0", "", SAYS),
    ("greeting", "2.0", "", SAYS),
    ("welcome", "1.0", "Requires: greeting = 1.0", SAYS),
    ("sudo", "1.9", "", SAYS),
    ("python3", "3.11", "", f"ln -s python3.11 {PROGRAM}"),
)
# What makes a Debian with dnf look like a distribution that has nothing else: its place of the database, no apt, and no
# Python of its own but the one that dnf runs on.
STEPS = (
    "mkdir -p /etc/rpm && echo '%_dbpath /var/lib/rpm' > /etc/rpm/macros.dbpath",
    "mkdir /srv/rpms && for spec in *.spec; do rpmbuild --quiet -bb -D '_rpmdir /srv/rpms' $spec; done; "
    "createrepo_c -q /srv/rpms; rm *.spec",
    "sed -i '1s|.*|#!/usr/bin/python3.11|' /usr/bin/dnf-3 && rm /usr/bin/python3 /usr/bin/apt-get",
    "mkdir -p /etc/yum.repos.d && printf '[local]\\nname=local\\nbaseurl={url}\\ngpgcheck=0\\n' "
    "> /etc/yum.repos.d/local.repo",
)


@dataclass
class RpmRepository:
    """What lies below `folder`, for clients that trust `ca_file`. While `deaf`, it hangs up on everyone."""

    folder: Path
    ca_file: Path
    port: int = 0
    deaf: bool = False
    asked: Counter[str] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.deaf and request.transport is not None:
            request.transport.abort()
        path = self.folder / request.path.lstrip("/")
        self.asked[path.name] += 1
        return web.FileResponse(path) if path.is_file() else web.Response(status=404)


@asynccontextmanager
async def running_rpm_repository(folder: Path) -> AsyncIterator[RpmRepository]:
    """Empty; `make_rpm_base` fills it."""
    ca = CertificateAuthority.create(folder / "ca")
    certificate, key = ca.issue_server(["127.0.0.1"]).write(folder, "repository")
    trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trust.load_cert_chain(certificate, key)
    repository = RpmRepository(folder / "repository", folder / "ca" / "ca.crt")
    application = web.Application()
    application.router.add_get("/{path:.*}", repository.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trust).start()
    repository.port = runner.addresses[0][1]
    try:
        yield repository
    finally:
        await runner.cleanup()


async def make_rpm_base(workshop: Workshop, repository: RpmRepository) -> str:
    """The name of a base with Debian's dnf and rpm, whose programs made the packages of the repository."""
    files = [
        await workshop.upload(f"{name}-{version}.spec", _spec(name, version, more, install))
        for name, version, more, install in PACKAGES
    ]
    steps = [step.replace("{url}", repository.url) for step in STEPS]
    spec = {"base": SMALL_BASE, "packages": {"apt": ["dnf", "rpm", "createrepo-c"]}, "steps": steps}
    artifact = await workshop.build(workshop.job("rpms", spec, files))
    mounted = Path(workshop.podman("image", "mount", "localhost/longshore/build/x86-cpu:rpms").strip())
    try:
        shutil.copytree(mounted / "srv/rpms", repository.folder)
    finally:
        workshop.podman("image", "unmount", "localhost/longshore/build/x86-cpu:rpms")
    return f"{artifact.repository}@{artifact.digest}"


def _spec(name: str, version: str, more: str, install: str) -> bytes:
    made = install.format(name=name, version=version)
    return SPEC.format(name=name, version=version, more=more, install=made).encode()
