"""Real systemd as the first process of a simulated device, with units of the device's own.

Nothing of this machine's services, generators and mounts is known to it: it sees folders of its own in the places of
units, which survive a power cut as those of a machine do.
"""

import shutil
from pathlib import Path

SYSTEMD = Path("/lib/systemd")
# What others depend on by default, without anything that these would pull in; systemd.special(7).
TARGETS = ("sysinit", "basic", "multi-user", "shutdown", "umount", "local-fs", "network", "time-set")
JOURNAL = ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")
TARGET = """\
[Unit]
Description={name}
DefaultDependencies=no
{more}
"""

SCRIPT = """
set -e
mount --bind "$0/units" /etc/systemd/system
mount --bind "$0/lib-units" /lib/systemd/system
mount --bind "$0/no-generators" /lib/systemd/system-generators
if [ -d /var/log/journal ]; then mount -t tmpfs tmpfs /var/log/journal; fi
touch "$1"
exec env -i container=longshore PATH="$PATH" /lib/systemd/systemd --system --unit=multi-user.target --show-status=no
"""


def available() -> bool:
    return (SYSTEMD / "systemd").exists()


def prepare(folder: Path) -> None:
    """The folders of units of a new device."""
    for name in ("units", "lib-units", "no-generators"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in TARGETS:
        more = (
            "Wants=systemd-journald.service\nRequires=sysinit.target\nAllowIsolate=yes" if name == "multi-user" else ""
        )
        (folder / "lib-units" / f"{name}.target").write_text(TARGET.format(name=name, more=more))
    for unit in JOURNAL:
        shutil.copy(SYSTEMD / "system" / unit, folder / "lib-units" / unit)


def first_process(folder: Path, booted: str) -> list[str]:
    """The command line that becomes systemd and touches `booted` just before."""
    return ["sh", "-c", SCRIPT, str(folder), booted]
