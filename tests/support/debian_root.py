"""A root of its own for apt and dpkg, with a repository beside it: packages are installed for real, and not here."""

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.debs import make_package

FOLDERS = (
    "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "etc/apt/preferences.d",
    "etc/apt/sources.list.d", "etc/apt/apt.conf.d", "etc/apt/trusted.gpg.d", "var/lib/apt/lists/partial",
    "var/cache/apt/archives/partial", "var/log/apt",
)  # fmt: skip
SETTINGS = """
Dir "{root}";
Dir::State::status "{root}/var/lib/dpkg/status";
Dir::Log "{root}/var/log/apt";
DPkg::Options {{ "--root={root}"; "--force-not-root"; "--force-script-chrootless"; }};
APT::Sandbox::User "root";
"""


@dataclass(frozen=True)
class DebianRoot:
    root: Path
    repository: Path

    def offer(self, name: str) -> None:
        """Afterwards the repository has this package, and apt's lists do not know it yet."""
        make_package(self.repository, name, {f"/usr/share/{name}/file": "x"}, architecture="all")
        archive = self.repository / f"{name}.deb"
        fields = subprocess.run(["dpkg-deb", "--field", archive], check=True, capture_output=True, text=True).stdout
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        place = f"Filename: ./{archive.name}\nSize: {archive.stat().st_size}\nSHA256: {digest}\n\n"
        with (self.repository / "Packages").open("a") as index:
            index.write(fields + place)


@contextmanager
def debian_root(folder: Path) -> Iterator[DebianRoot]:
    """What this process asks of apt and dpkg within the block happens in a root without any package."""
    made = DebianRoot(folder / "root", folder / "repository")
    for name in FOLDERS:
        (made.root / name).mkdir(parents=True)
    made.repository.mkdir()
    (made.root / "var/lib/dpkg/status").touch()
    (made.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{made.repository} ./\n")
    (folder / "apt.conf").write_text(SETTINGS.format(root=made.root))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APT_CONFIG", str(folder / "apt.conf"))
        patch.setenv("DPKG_ADMINDIR", str(made.root / "var/lib/dpkg"))
        yield made
