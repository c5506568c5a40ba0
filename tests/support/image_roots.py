"""A folder that looks like an image's root, with packages of every kind that a bill of materials lists."""

import json
from pathlib import Path

OS_RELEASE = 'ID=debian\nVERSION_ID="12"\n'
DPKG_STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10
Description: GNU C Library
 Package: not-a-package
 Version: 9

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""
STATUS_D = "Package: tzdata\nArchitecture: all\nVersion: 2025b-0+deb12u1\n"
APK_INSTALLED = "P:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\nC:Q1abc=\n\nP:busybox\nV:1.36.1-r29\nA:x86_64\nL:GPL-2.0-only\n"
FLASK = "Metadata-Version: 2.4\nName: Flask\nVersion: 3.1.3\nLicense-Expression: BSD-3-Clause\n\nName: wrong\n"
NUMPY = "Metadata-Version: 2.1\nName: numpy\nVersion: 2.4.6\nClassifier: License :: OSI Approved :: BSD License\n"
CONDA = {
    "name": "zlib", "version": "1.3.1", "build": "hb9d3cd8_2", "channel": "conda-forge", "subdir": "linux-64",
    "license": "Zlib", "sha256": "5d7c0e5f0005f74112a34a7425179f4eb6e73c92f5d109e6af4ddeca407c92ab",
}  # fmt: skip
PURLS = [
    "pkg:apk/alpine/busybox@1.36.1-r29?arch=x86_64",
    "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64",
    "pkg:conda/zlib@1.3.1?build=hb9d3cd8_2&channel=conda-forge&subdir=linux-64",
    "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12",
    "pkg:deb/debian/tzdata@2025b-0%2Bdeb12u1?arch=all&distro=debian-12",
    "pkg:pypi/flask@3.1.3",
    "pkg:pypi/numpy@2.4.6",
]


def make_root(folder: Path) -> Path:
    """The folder, which holds exactly the packages of PURLS."""
    files = {
        "etc/os-release": OS_RELEASE,
        "var/lib/dpkg/status": DPKG_STATUS,
        "var/lib/dpkg/status.d/tzdata": STATUS_D,
        "var/lib/dpkg/status.d/tzdata.md5sums": "d41d8cd98f00b204e9800998ecf8427e  usr/share/zoneinfo/UTC\n",
        "lib/apk/db/installed": APK_INSTALLED,
        "opt/venv/lib/python3.11/site-packages/flask-3.1.3.dist-info/METADATA": FLASK,
        "usr/lib/python3/dist-packages/flask-3.1.3.dist-info/METADATA": FLASK,
        "usr/local/lib/python3.11/site-packages/numpy-2.4.6.dist-info/METADATA": NUMPY,
        "opt/conda/conda-meta/zlib-1.3.1-hb9d3cd8_2.json": json.dumps(CONDA),
        "opt/conda/conda-meta/broken.json": "{",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
