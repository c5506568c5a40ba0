"""apt-get of this machine at work for another system: its sources, its package state, its architecture."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.builds import processes
from controller.builds.host_settings import CA_PATH, HostSettings
from controller.builds.model import OnLine

# As Go and OCI spell an architecture, and as Debian does.
DEBIAN_NAMES = {"arm": "armhf", "386": "i386"}
FOLDERS = (
    "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d",
    "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg",
)  # fmt: skip
# Two at a time: unpacking is done by a compiled program, and most of it is decompression.
UNPACK = 'dpkg-deb --fsys-tarfile "$1" >"$1.data" && dpkg-deb --ctrl-tarfile "$1" >"$1.control" && rm "$1"'


class AptFailed(Exception):
    """apt-get ended with this status after these lines."""

    def __init__(self, status: int, lines: Sequence[str]) -> None:
        super().__init__(f"apt-get ended with {status}")
        self.status = status
        self.lines = tuple(lines)


@dataclass(frozen=True)
class PrivateApt:
    """All state of apt below `folder`; nothing of this machine's apt but its programs is used.

    Write sources to `etc/apt/sources.list`, keys to `etc/apt/trusted.gpg.d/` and the packages that the system has to
    `var/lib/dpkg/status` below `folder`, after `prepare`.
    """

    folder: Path
    architecture: str
    host: HostSettings
    # Of the programs, besides what is set here.
    environment: Mapping[str, str]

    def prepare(self) -> None:
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "var/lib/dpkg/status").touch()
        (self.folder / "apt.conf").write_text(self._settings(), encoding="utf-8")

    async def update(self, on_line: OnLine) -> None:
        """Reads what the sources offer. Raises AptFailed."""
        await self._apt(["update", "-o", "APT::Update::Error-Mode=any"], on_line)

    async def replaced(self, packages: Sequence[str]) -> list[str]:
        """Names of packages that the system has and that would be removed or replaced by installing these; after
        `update`. Raises AptFailed."""
        lines = await self._apt(["install", "--simulate", *packages], lambda *_: None)
        found = [re.match(r"Remv (\S+)|Inst (\S+) \[", line) for line in lines]
        return [match[1] or match[2] for match in found if match]

    async def download(self, packages: Sequence[str], on_line: OnLine) -> list[Path]:
        """Downloads these and what they need besides what the system has; after `update`. Returns paths without suffix:
        `.data` has the files and `.control` the control members of one package each, as tar. Raises AptFailed."""
        await self._apt(["install", "--download-only", *packages], on_line)
        archives = self.folder / "var/cache/apt/archives"
        found = sorted(archives.glob("*.deb"))
        if found:
            names = archives / "names"
            names.write_bytes(b"\0".join(bytes(path) for path in found))
            await self._run(["xargs", "-a", str(names), "-0", "-P2", "-n1", "sh", "-c", UNPACK, "sh"], on_line)
        return found

    async def _apt(self, arguments: Sequence[str], on_line: OnLine) -> list[str]:
        return await self._run(["apt-get", "-qq", *arguments], on_line)

    async def _run(self, argv: Sequence[str], on_line: OnLine) -> list[str]:
        lines: list[str] = []

        def keep(stream: str, text: str) -> None:
            lines.append(text)
            on_line(stream, text)

        status = await processes.stream(argv, self._environment(), keep)
        if status != 0:
            raise AptFailed(status, lines)
        return lines

    def _environment(self) -> dict[str, str]:
        return {
            **self.environment,
            **self.host.native_environment(),
            "LC_ALL": "C",
            "DEBIAN_FRONTEND": "noninteractive",
            "APT_CONFIG": str(self.folder / "apt.conf"),
        }

    def _settings(self) -> str:
        """Read before any other file, and naming none of this machine's."""
        own = debian_architecture(self.architecture)
        text = self.host.apt_config
        if self.host.ca_bundle is not None:
            text = text.replace(CA_PATH, str(self.host.ca_bundle))
        return text + (
            f'Dir "{self.folder}/";\n'
            f'Dir::State::status "{self.folder}/var/lib/dpkg/status";\n'
            f'Dir::Etc::main "apt.conf";\nDir::Etc::parts "apt.conf.d";\n'
            'Dir::Etc::trusted "trusted.gpg";\nDir::Etc::trustedparts "trusted.gpg.d";\n'
            f'APT::Architecture "{own}";\nAPT::Architectures "{own}";\n'
            'APT::Sandbox::User "root";\nAPT::Get::Assume-Yes "true";\nAPT::Install-Recommends "false";\n'
            # A name that apt does not know is an error, not a regular expression over all names.
            'APT::Cmd::Pattern-Only "true";\nAcquire::Languages "none";\n'
        )


def debian_architecture(architecture: str) -> str:
    return DEBIAN_NAMES.get(architecture, architecture)
