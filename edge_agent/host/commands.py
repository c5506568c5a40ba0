"""The commands of an agent. Each imports what it needs and no more: an idle agent has to be small."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_agent.errors import UserError
from edge_agent.host.program import Credentials, Program
from edge_agent.runtime.backend import DeployBackend
from edge_agent.runtime.identity import (
    AlreadyRunning,
    Identity,
    InvalidIdentity,
    NotEnrolled,
    load_identity,
    state_lock,
)
from edge_agent.runtime.settings import LOG_LEVELS, AgentSettings, InvalidSettings, load_settings, write_template

EXAMPLES = """\
examples:
  {name} install --token TOKEN   all at once: enroll, and run as a service from now on
  {name} enroll TOKEN            make this machine a device (TOKEN: `longshore enroll-token`)
  {name} run                     run what the controller wishes, until it is told to stop
  {name} status                  who this device is, and what it holds
  {name} doctor                  what this machine lacks, and how to mend it
  {name} uninstall               no service any more; what runs here runs on
  {name} leave                   end what runs here, remove its {artifacts}, be no device any more
"""
COMMON_FLAGS: Mapping[str, Mapping[str, Any]] = {
    "--advertise-host": {"help": "address of this device in the endpoints of what it runs"},
    "--poll-interval": {"type": float, "metavar": "SECONDS", "help": "while the broker is out of reach (60)"},
    "--resync-interval": {"type": float, "metavar": "SECONDS", "help": "while all is well (43200)"},
    "--keepalive": {"type": float, "metavar": "SECONDS", "help": "until a silent broker is asked (300)"},
    "--log-level": {"choices": LOG_LEVELS},
}


def run_command(program: Program, argv: Sequence[str] | None) -> int:
    """Exit code 0 where what was asked for is so, 1 where it is not, 2 for a malformed command line."""
    arguments = parser_of(program).parse_args(argv)
    try:
        return int(arguments.command(program, arguments))
    except (UserError, NotEnrolled, InvalidIdentity, InvalidSettings, AlreadyRunning) as error:
        print(f"{program.name}: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"{program.name}: {error}; are you root?", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def parser_of(program: Program) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program.name,
        description=f"Runs on a device what Longshore's controller wishes for it, {program.runs_with}.",
        epilog=EXAMPLES.format(name=program.name, artifacts=program.artifacts),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version)
    commands = _Commands(program, parser.add_subparsers(required=True, metavar="COMMAND"))
    _add_enroll(commands)
    _add_run(commands)
    commands.add("status", "who this device is, and what it holds", _status)
    doctor = commands.add("doctor", "what this machine lacks, and how to mend it", _doctor)
    doctor.add_argument("--json", action="store_true", help="for programs")
    _add_install(commands)
    commands.add("uninstall", "no service any more; what runs here runs on", _uninstall)
    text = f"end what runs here, remove its {program.artifacts}, be no device any more"
    commands.add("leave", text, _leave)
    return parser


class _Commands:
    """The commands of one agent, each with the folder of its state."""

    def __init__(self, program: Program, parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
        self.program = program
        self._parsers = parsers

    def add(
        self, name: str, text: str, command: Callable[[Program, argparse.Namespace], int]
    ) -> argparse.ArgumentParser:
        made = self._parsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(command=command)
        made.add_argument(
            "--state-dir",
            type=_folder,
            default=self.program.state_dir,
            help="identity, settings and database (%(default)s)",
        )
        return made


def _folder(text: str) -> Path:
    # What others are given of it (certificates, sockets) must hold whatever their working directory is.
    return Path(text).absolute()


def _add_enroll(commands: _Commands) -> None:
    enroll = commands.add("enroll", "make this machine a device", _enroll)
    enroll.add_argument("token", help="as `longshore enroll-token` prints it")
    _add_device_flags(enroll)
    enroll.add_argument("--force", action="store_true", help="forget the device that this machine is already")


def _add_install(commands: _Commands) -> None:
    text = "enroll this machine, and run the agent as a service from now on"
    install = commands.add("install", text, _install)
    install.add_argument("--token", default="", help="as `longshore enroll-token` prints it; not needed once enrolled")
    _add_device_flags(install)
    install.set_defaults(force=False)


def _add_device_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="", help="name of the device, where the token names none (its host name)")
    parser.add_argument("--profile", default="", help="target profile of the device, where the token names none")
    parser.add_argument("--controller", default="", metavar="HOST:PORT", help="instead of the address in the token")


def _add_run(commands: _Commands) -> None:
    run = commands.add("run", "run what the controller wishes, until it is told to stop", _run)
    for name, settings in {**COMMON_FLAGS, **_own_flags(commands.program)}.items():
        run.add_argument(name, **settings)


def _own_flags(program: Program) -> Mapping[str, Mapping[str, Any]]:
    """As argparse takes them. Without a flag the settings file decides."""
    flags = {}
    for option in program.options:
        switch = {"action": argparse.BooleanOptionalAction} if isinstance(option.default, bool) else {}
        number = {"type": float} if isinstance(option.default, float) else {}
        flags[f"--{option.name.replace('_', '-')}"] = {**switch, **number, "default": None, "help": option.help}
    return flags


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from edge_agent.version import version

        print(f"{parser.prog} {version()}")
        parser.exit()


def _enroll(program: Program, arguments: argparse.Namespace) -> int:
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
    write_template(arguments.state_dir, program.options)
    print(f"enrolled as {identity.device_name} ({identity.device_id})")
    return 0


def _status(program: Program, arguments: argparse.Namespace) -> int:
    from edge_agent.host.service import state
    from edge_agent.runtime.inspection import describe_state

    for line in describe_state(arguments.state_dir):
        print(line)
    print(f"service      {state(program.kind)}")
    return 0


def _install(program: Program, arguments: argparse.Namespace) -> int:
    from edge_agent.host.service import install, require_systemd
    from edge_agent.runtime.identity import is_enrolled

    require_systemd()
    if not is_enrolled(arguments.state_dir):
        if not arguments.token:
            raise UserError("this machine is no device yet: give --token, as `longshore enroll-token` prints it")
        _enroll(program, arguments)
    install(program.kind, arguments.state_dir)
    print(f"{program.kind.unit} runs, now and after each boot; `journalctl -u {program.kind.unit}` shows its log")
    return 0


def _uninstall(program: Program, _: argparse.Namespace) -> int:
    from edge_agent.host.service import uninstall

    there = uninstall(program.kind)
    kept = f"what it started runs on; `{program.name} leave` ends that too"
    print(f"{program.kind.unit} is removed; {kept}" if there else f"there is no {program.kind.unit}")
    return 0


def _doctor(program: Program, arguments: argparse.Namespace) -> int:
    import asyncio
    import tempfile

    from edge_agent.host import doctor, findings
    from edge_agent.runtime.logs import configure_logging

    configure_logging("error")

    async def own(folder: Path) -> list[findings.Finding]:
        return await program.examine(folder)

    with tempfile.TemporaryDirectory(prefix="longshore-doctor-") as folder:
        found = [*doctor.examine(arguments.state_dir), *asyncio.run(own(Path(folder)))]
    print(findings.as_json(found) if arguments.json else findings.as_text(found))
    return 0 if findings.healthy(found) else 1


def _leave(program: Program, arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments.state_dir, {}, program.options)
    identity = load_identity(settings.state_dir)
    with state_lock(settings.state_dir):
        from edge_agent.runtime.logs import configure_logging

        configure_logging("warning")
        from edge_agent.host.leaving import leave
        from edge_agent.runtime.backend import BackendError

        try:
            left = leave(program, settings, identity)
        except BackendError as error:
            raise UserError(f"{error.message}; run it again") from None
    name = identity.device_name
    print(
        f"{name} has left: {left.removed} instance(s), their {program.artifacts} and {settings.state_dir} are removed"
    )
    if left.untold:
        hint = f"there: longshore devices delete {name}"
        print(f"{program.name}: the controller does not know of it: {left.untold}; {hint}", file=sys.stderr)
    return 0


def _run(program: Program, arguments: argparse.Namespace) -> int:
    flags = (*COMMON_FLAGS, *_own_flags(program))
    names = [flag.removeprefix("--").replace("-", "_") for flag in flags]
    given = {name: getattr(arguments, name) for name in names}
    settings = load_settings(arguments.state_dir, given, program.options)
    identity = load_identity(settings.state_dir)
    with state_lock(settings.state_dir):
        from edge_agent.runtime.logs import configure_logging

        # The agent forks only to execute something else; gRPC's handlers for forks can abort such a child before it
        # does (https://github.com/grpc/grpc/issues/43055). Read when gRPC is imported.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

        # First of all that logs: it decides what structlog takes along.
        configure_logging(settings.log_level)
        from edge_agent.host.process import run_process

        def factory(settings: AgentSettings, identity: Identity) -> Callable[[Credentials], DeployBackend]:
            return lambda credential: program.backend(settings, identity, credential)

        return run_process(settings, identity, factory)
