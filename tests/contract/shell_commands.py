"""The commands of the contract where there is a shell, and those of them that last, seen from the device."""

from collections.abc import Sequence

from tests.contract.machine import MUCH, Command
from tests.support.devices import SimulatedDevice

SCRIPTS = {
    Command.BOTH: "echo out; echo err >&2",
    Command.ENDS: "exit 7",
    Command.SIZE: "trap 'stty size' WINCH; stty size; while :; do sleep 1 & wait; done",
    Command.MUCH: f"head -c {MUCH} /dev/zero | tr '\\0' x",
}


def shell_command(command: Command, mark: int) -> Sequence[str]:
    """`mark` tells the processes of one machine from those of others."""
    if command is Command.ECHO:
        return ("cat",)
    if command is Command.LASTS:
        return ("sh", "-c", f"sleep {mark} & sleep {mark}; wait")
    return ("nonesuch",) if command is Command.NONE else ("sh", "-c", SCRIPTS[command])


async def lasting(device: SimulatedDevice, mark: int) -> int:
    script = f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -cx '[0]*{mark}' || true"
    return int(await device.run("sh", "-c", script))
