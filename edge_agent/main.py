"""The `longshore-edge-agent` command. Each command imports what it needs and no more: an idle agent has to be small."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edge_agent.errors import UserError
from edge_agent.runtime.identity import AlreadyRunning, InvalidIdentity, NotEnrolled, load_identity, state_lock
from edge_agent.runtime.settings import DEFAULT_STATE_DIR, LOG_LEVELS, InvalidSettings, load_settings

EXAMPLES = """\
examples:
  longshore-edge-agent install --token TOKEN   all at once: enroll, and run as a service from now on
  longshore-edge-agent enroll TOKEN            make this machine a device (TOKEN: `longshore enroll-token`)
  longshore-edge-agent run                     run what the controller wishes, until it is told to stop
  longshore-edge-agent status                  who this device is, and what it holds
  longshore-edge-agent doctor                  what this machine lacks, and how to mend it
  longshore-edge-agent uninstall               no service any more; what runs here runs on
  longshore-edge-agent leave                   end what runs here, remove its images, be no device any more
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 where what was asked for is so, 1 where it is not, 2 for a malformed command line."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except (UserError, NotEnrolled, InvalidIdentity, InvalidSettings, AlreadyRunning) as error:
        print(f"longshore-edge-agent: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"longshore-edge-agent: {error}; are you root?", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="longshore-edge-agent",
        description="Runs on a device what Longshore's controller wishes for it, with Podman.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_enroll(commands)
    _add_run(commands)
    status = _add_command(commands, "status", "who this device is, and what it holds")
    status.set_defaults(command=_status)
    doctor = _add_command(commands, "doctor", "what this machine lacks, and how to mend it")
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.set_defaults(command=_doctor)
    _add_install(commands)
    uninstalling = _add_command(commands, "uninstall", "no service any more; what runs here runs on")
    uninstalling.set_defaults(command=_uninstall)
    leaving = _add_command(commands, "leave", "end what runs here, remove its images, be no device any more")
    leaving.set_defaults(command=_leave)
    return parser


def _add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.add_argument(
        "--state-dir", type=_folder, default=DEFAULT_STATE_DIR, help="identity, settings and database (%(default)s)"
    )
    return command


def _folder(text: str) -> Path:
    # What others are given of it (certificates, sockets) must hold whatever their working directory is.
    return Path(text).absolute()


def _add_enroll(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    enroll = _add_command(commands, "enroll", "make this machine a device")
    enroll.add_argument("token", help="as `longshore enroll-token` prints it")
    enroll.add_argument("--name", default="", help="name of the device, where the token names none (its host name)")
    enroll.add_argument("--profile", default="", help="target profile of the device, where the token names none")
    enroll.add_argument("--force", action="store_true", help="forget the device that this machine is already")
    enroll.add_argument("--controller", default="", metavar="HOST:PORT", help="instead of the address in the token")
    enroll.set_defaults(command=_enroll)


def _add_install(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    install = _add_command(commands, "install", "enroll this machine, and run the agent as a service from now on")
    install.add_argument("--token", default="", help="as `longshore enroll-token` prints it; not needed once enrolled")
    install.add_argument("--controller", default="", metavar="HOST:PORT", help="instead of the address in the token")
    install.add_argument("--name", default="", help="name of the device, where the token names none (its host name)")
    install.add_argument("--profile", default="", help="target profile of the device, where the token names none")
    install.set_defaults(command=_install, force=False)


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = _add_command(commands, "run", "run what the controller wishes, until it is told to stop")
    run.add_argument("--advertise-host", help="address of this device in the endpoints of what it runs")
    run.add_argument("--poll-interval", type=float, metavar="SECONDS", help="while the broker is out of reach (60)")
    run.add_argument("--resync-interval", type=float, metavar="SECONDS", help="while all is well (21600)")
    run.add_argument("--keepalive", type=float, metavar="SECONDS", help="until a silent broker is asked (300)")
    run.add_argument("--podman-url", metavar="URL", help="a running Podman service (one is started on demand)")
    run.add_argument("--log-level", choices=LOG_LEVELS)
    run.set_defaults(command=_run)


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from edge_agent.version import version

        print(f"longshore-edge-agent {version()}")
        parser.exit()


def _enroll(arguments: argparse.Namespace) -> int:
    from edge_agent.runtime.enrollment import EnrollmentFailed, EnrollmentRequest, enroll_blocking
    from edge_agent.runtime.facts import device_facts
    from edge_agent.version import version

    request = EnrollmentRequest(
        token=arguments.token,
        facts=device_facts(version(), folders=[arguments.state_dir]),
        name=arguments.name,
        profile=arguments.profile,
        controller_address=arguments.controller,
        force=arguments.force,
    )
    try:
        identity = enroll_blocking(arguments.state_dir, request)
    except EnrollmentFailed as error:
        raise UserError(str(error)) from None
    print(f"enrolled as {identity.device_name} ({identity.device_id})")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from edge_agent.host.service import state
    from edge_agent.host.unit import EDGE_AGENT
    from edge_agent.runtime.inspection import describe_state

    for line in describe_state(arguments.state_dir):
        print(line)
    print(f"service      {state(EDGE_AGENT)}")
    return 0


def _install(arguments: argparse.Namespace) -> int:
    from edge_agent.host.service import install, require_systemd
    from edge_agent.host.unit import EDGE_AGENT
    from edge_agent.runtime.identity import is_enrolled

    require_systemd()
    if not is_enrolled(arguments.state_dir):
        if not arguments.token:
            raise UserError("this machine is no device yet: give --token, as `longshore enroll-token` prints it")
        _enroll(arguments)
    install(EDGE_AGENT, arguments.state_dir)
    print(f"{EDGE_AGENT.unit} runs, now and after each boot; `journalctl -u {EDGE_AGENT.unit}` shows its log")
    return 0


def _uninstall(_: argparse.Namespace) -> int:
    from edge_agent.host.service import uninstall
    from edge_agent.host.unit import EDGE_AGENT

    there = uninstall(EDGE_AGENT)
    kept = "what it started runs on; `longshore-edge-agent leave` ends that too"
    print(f"{EDGE_AGENT.unit} is removed; {kept}" if there else f"there is no {EDGE_AGENT.unit}")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    import asyncio

    from edge_agent.host import doctor, findings
    from edge_agent.podman import doctor as podman_doctor
    from edge_agent.podman.backend import PodmanBackend
    from edge_agent.runtime.logs import configure_logging

    configure_logging("error")

    async def podman(folder: Path) -> list[findings.Finding]:
        backend = PodmanBackend("doctor", folder, _no_credentials, None)
        try:
            return await podman_doctor.examine(backend)
        finally:
            await backend.close()

    with tempfile.TemporaryDirectory(prefix="longshore-doctor-") as folder:
        found = [*doctor.examine(arguments.state_dir), *asyncio.run(podman(Path(folder)))]
    print(findings.as_json(found) if arguments.json else findings.as_text(found))
    return 0 if findings.healthy(found) else 1


async def _no_credentials() -> tuple[str, str]:
    raise RuntimeError("a doctor fetches nothing")


def _leave(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments.state_dir, {})
    identity = load_identity(settings.state_dir)
    with state_lock(settings.state_dir):
        from edge_agent.runtime.logs import configure_logging

        configure_logging("warning")
        from edge_agent.leaving import leave
        from edge_agent.runtime.backend import BackendError

        try:
            left = leave(settings, identity)
        except BackendError as error:
            raise UserError(f"{error.message}; run it again") from None
    name = identity.device_name
    print(f"{name} has left: {left.removed} instance(s), their images and {settings.state_dir} are removed")
    if left.untold:
        hint = f"there: longshore devices delete {name}"
        print(f"longshore-edge-agent: the controller does not know of it: {left.untold}; {hint}", file=sys.stderr)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    names = ("advertise_host", "poll_interval", "resync_interval", "keepalive", "podman_url", "log_level")
    settings = load_settings(arguments.state_dir, {name: getattr(arguments, name) for name in names})
    identity = load_identity(settings.state_dir)
    with state_lock(settings.state_dir):
        from edge_agent.runtime.logs import configure_logging

        # The agent forks only to execute something else; gRPC's handlers for forks can abort such a child before it
        # does (https://github.com/grpc/grpc/issues/43055). Read when gRPC is imported.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

        # First of all that logs: it decides what structlog takes along.
        configure_logging(settings.log_level)
        from edge_agent.process import run_process

        return run_process(settings, identity)


if __name__ == "__main__":
    sys.exit(main())
