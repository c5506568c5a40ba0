"""Small rpm packages, and a base whose dnf knows no others."""

import shutil
from pathlib import Path

from tests.support.building import SMALL_BASE, Workshop
from tests.support.package_folder import PackageFolder

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
    "mkdir -p /etc/yum.repos.d && printf '[local]\\nname=local\\nbaseurl={url}/\\ngpgcheck=0\\n' "
    "> /etc/yum.repos.d/local.repo",
)


async def make_rpm_base(workshop: Workshop, repository: PackageFolder) -> str:
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
