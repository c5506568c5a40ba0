"""Which packages are installed below a folder that is an image's root, by the files of the package managers.

Nothing of the image is run, and nothing outside of the folder is read, whatever links the image has.
"""

import email.message
import email.parser
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packageurl import PackageURL

# A file that is larger is none of these programs': lists of all packages, and descriptions of one.
MAX_FILE = 64 * 2**20
MAX_DESCRIPTION = 16 * 2**20
# Of one image. What an image says of itself is anybody's, and all is held in memory.
MAX_TOTAL = 512 * 2**20
MAX_PACKAGES = 200_000
OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
APK_DATABASES = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
RPM_DATABASES = ("usr/lib/sysimage/rpm", "var/lib/rpm")
SITE_PACKAGES = (
    "opt/venv/lib/python*/site-packages",
    "opt/conda/lib/python*/site-packages",
    "usr/local/lib/python*/site-packages",
    "usr/local/lib/python*/dist-packages",
    "usr/lib/python*/site-packages",
    "usr/lib/python*/dist-packages",
)
LONGEST_LICENSE = 200
# Words that say in a package's metadata that nothing is known.
NO_LICENSE = {"", "UNKNOWN", "None"}


@dataclass(frozen=True, order=True)
class Package:
    """One installed package. `purl` names it: https://github.com/package-url/purl-spec

    `expression` is a license expression of SPDX, `license` one in the package's own words; sha256 as hex.
    """

    purl: str
    name: str
    version: str
    expression: str = ""
    license: str = ""
    sha256: str = ""


class TooMuch(Exception):
    """The image names more packages, or describes them at greater length, than any real one."""


def installed_packages(root: Path) -> list[Package]:
    """All packages that apt, apk, uv or pip, and conda installed; sorted, each once. Blocks. Raises TooMuch."""
    reader = _Root(root)
    found: set[Package] = set()
    for package in itertools.chain(_debian(reader), _alpine(reader), _python(reader), _conda(reader)):
        found.add(package)
        if len(found) > MAX_PACKAGES:
            raise TooMuch(f"it names more than {MAX_PACKAGES} packages")
    return sorted(found)


def has_rpm(root: Path) -> bool:
    """Whether rpm keeps a database there, which only rpm itself can read."""
    reader = _Root(root)
    return any(True for folder in RPM_DATABASES for _ in reader.glob(f"{folder}/*"))


def rpm_packages(listing: str, root: Path) -> list[Package]:
    """The packages that `rpm -qa` printed in RPM_FORMAT."""
    vendor = _release(_Root(root)).get("ID", "rpm")
    found = set()
    for line in listing.splitlines():
        name, version, architecture, license_text = ([*line.split("\t"), "", "", ""])[:4]
        if name and version and name != "gpg-pubkey":
            purl = PackageURL("rpm", vendor, name, version, {"arch": architecture})
            found.add(Package(purl.to_string(), name, version, license=license_text[:LONGEST_LICENSE]))
    return sorted(found)


RPM_FORMAT = "%{NAME}\\t%{VERSION}-%{RELEASE}\\t%{ARCH}\\t%{LICENSE}\\n"


class _Root:
    """Reads files below a folder; links are followed only inside of it."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._left = MAX_TOTAL

    def read(self, path: str | Path, limit: int = MAX_FILE) -> str:
        """Content of a file, "" where it is not there or nothing that may be read. Raises TooMuch when all that was
        read is more than MAX_TOTAL."""
        try:
            file = (self._root / path).resolve()
            if not file.is_relative_to(self._root) or not file.is_file() or file.stat().st_size > limit:
                return ""
            text = file.read_text(encoding="utf-8", errors="replace")
        except (OSError, RuntimeError):
            # RuntimeError: links that lead in a circle.
            return ""
        self._left -= len(text)
        if self._left < 0:
            raise TooMuch(f"its packages are described by more than {MAX_TOTAL // 2**20} MiB")
        return text

    def glob(self, pattern: str) -> Iterator[Path]:
        """Paths below the folder, which its own links do not lead out of."""
        for found in sorted(self._root.glob(pattern)):
            if found.parent.resolve().is_relative_to(self._root):
                yield found


def _release(root: _Root) -> Mapping[str, str]:
    """https://www.freedesktop.org/software/systemd/man/latest/os-release.html"""
    text = next((text for path in OS_RELEASE if (text := root.read(path))), "")
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value.strip("\"'") for key, _, value in pairs if value}


def _debian(root: _Root) -> Iterator[Package]:
    release = _release(root)
    vendor = release.get("ID", "debian")
    qualifiers = {"distro": f"{vendor}-{release['VERSION_ID']}"} if "VERSION_ID" in release else {}
    for stanza in (part for text in _debian_texts(root) for part in text.split("\n\n")):
        fields = _fields(stanza)
        name, version = fields.get("Package", ""), fields.get("Version", "")
        if name and version and fields.get("Status", "install ok installed").endswith(" installed"):
            known = {"arch": fields.get("Architecture", ""), **qualifiers}
            yield Package(PackageURL("deb", vendor, name, version, known).to_string(), name, version)


def _debian_texts(root: _Root) -> Iterator[str]:
    yield root.read("var/lib/dpkg/status")
    # Bases without dpkg keep the description of each package in a file of its own.
    for path in root.glob("var/lib/dpkg/status.d/*"):
        if path.suffix != ".md5sums":
            yield root.read(path, MAX_DESCRIPTION)


def _alpine(root: _Root) -> Iterator[Package]:
    text = next((text for path in APK_DATABASES if (text := root.read(path))), "")
    for stanza in text.split("\n\n"):
        fields = dict(line.split(":", 1) for line in stanza.splitlines() if re.match(r"[A-Za-z]:", line))
        name, version = fields.get("P", ""), fields.get("V", "")
        if name and version:
            purl = PackageURL("apk", "alpine", name, version, {"arch": fields.get("A", "")})
            yield Package(purl.to_string(), name, version, license=fields.get("L", "")[:LONGEST_LICENSE])


def _python(root: _Root) -> Iterator[Package]:
    """https://packaging.python.org/en/latest/specifications/recording-installed-packages/"""
    for folder in SITE_PACKAGES:
        for path in root.glob(f"{folder}/*.dist-info/METADATA"):
            yield from python_package(root.read(path, MAX_DESCRIPTION))


def python_package(metadata: str) -> Iterator[Package]:
    """The package that a METADATA file describes: https://packaging.python.org/en/latest/specifications/core-metadata/"""
    fields = email.parser.HeaderParser().parsestr(metadata)
    name, version = str(fields.get("Name", "")), str(fields.get("Version", ""))
    if not name or not version:
        return
    expression = " ".join(str(fields.get("License-Expression", "")).split())
    purl = PackageURL("pypi", None, name, version).to_string()
    yield Package(purl, name, version, expression, "" if expression else _license(fields))


def _license(fields: "email.message.Message[str, str]") -> str:
    """The one of the classifiers, or the text, where it is not the whole license."""
    classifiers = [str(value).split(" :: ") for value in fields.get_all("Classifier", [])]
    named = [parts[-1] for parts in classifiers if parts[0] == "License" and len(parts) > 2]
    text = str(fields.get("License", "")).strip()
    if text in NO_LICENSE or "\n" in text or len(text) > LONGEST_LICENSE:
        text = ""
    return text or " and ".join(sorted(named))


def _conda(root: _Root) -> Iterator[Package]:
    for path in root.glob("opt/conda/conda-meta/*.json"):
        try:
            record = json.loads(root.read(path, MAX_DESCRIPTION) or "{}")
        except ValueError:
            continue
        if not isinstance(record, dict):
            continue
        fields = {key: str(record.get(key) or "") for key in ("name", "version", "build", "channel", "subdir")}
        if fields["name"] and fields["version"]:
            yield _conda_package(fields, str(record.get("license") or ""), str(record.get("sha256") or ""))


def _conda_package(fields: Mapping[str, str], license_text: str, sha256: str) -> Package:
    name, version = fields["name"], fields["version"]
    qualifiers = {key: fields[key] for key in ("build", "channel", "subdir")}
    purl = PackageURL("conda", None, name, version, qualifiers).to_string()
    hashed = sha256 if re.fullmatch(r"[0-9a-f]{64}", sha256) else ""
    return Package(purl, name, version, license=license_text[:LONGEST_LICENSE], sha256=hashed)


def _fields(stanza: str) -> dict[str, str]:
    """Fields of one line each; what follows on further lines is not needed."""
    lines = (line.partition(":") for line in stanza.splitlines() if line and line[0] not in " \t")
    return {key: value.strip() for key, _, value in lines}
