"""The `longshore-edge-agent` command. Each command imports what it needs and no more: an idle agent has to be small."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_agent.runtime.identity import AlreadyRunning, InvalidIdentity, NotEnrolled, load_identity, state_lock
from edge_agent.runtime.settings import DEFAULT_STATE_DIR, LOG_LEVELS, InvalidSettings, load_settings

EXAMPLES = """\
examples:
  longshore-edge-agent enroll TOKEN            make this machine a device (TOKEN: `longshore enroll-token`)
  longshore-edge-agent run                     run what the controller wishes, until it is told to stop
  longshore-edge-agent status                  who this device is, and what it holds
  longshore-edge-agent leave                   end what runs here, remove its images, be no device any more
"""


class UserError(Exception):
    """Something to be told to the person at the keyboard, in one sentence."""


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


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = _add_command(commands, "run", "run what the controller wishes, until it is told to stop")
    run.add_argument("--advertise-host", help="address of this device in the endpoints of what it runs")
    run.add_argument("--poll-interval", type=float, metavar="SECONDS", help="while the broker is out of reach (60)")
    run.add_argument("--resync-interval", type=float, metavar="SECONDS", help="while all is well (21600)")
    run.add_argument("--keepalive", type=float, metavar="SECONDS", help="until a silent broker is asked (240)")
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
        facts=device_facts(version()),
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
    from edge_agent.runtime.inspection import describe_state

    for line in describe_state(arguments.state_dir):
        print(line)
    return 0


def _leave(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments.state_dir, {})
    identity = load_identity(settings.state_dir)
    with state_lock(settings.state_dir):
        from edge_agent.runtime.logs import configure_logging

        configure_logging("warning")
        from edge_agent.leaving import leave
        from edge_agent.runtime.backend import BackendError

        try:
            removed = leave(settings, identity)
        except BackendError as error:
            raise UserError(f"{error.message}; run it again") from None
    print(f"{identity.device_name} has left: {removed} instance(s), their images and {settings.state_dir} are removed")
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
