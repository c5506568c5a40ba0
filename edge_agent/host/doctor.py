"""Looks for what keeps an agent from its work on this machine, whatever it runs things with."""

import os
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.host.findings import Finding, ok, problem, warning
from edge_agent.runtime.addresses import parse_address
from edge_agent.runtime.identity import Identity, InvalidIdentity, NotEnrolled, load_identity

if TYPE_CHECKING:
    from cryptography import x509

TIMEOUT = 5.0
MIB = 2**20
LEAST_FREE = 256 * MIB
# No clock of a device that runs this is earlier.
NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
DAY = 86400.0
# Of a certificate's end; it is renewed long before.
SOON = 14 * DAY
# X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED, X509_V_FLAG_NO_CHECK_TIME of openssl/x509_vfy.h.
WRONG_DATES, NO_CHECK_TIME = (9, 10), 0x200000
IN_MEMORY = ("tmpfs", "ramfs")


def examine(state_dir: Path) -> Iterator[Finding]:
    """What is common to all agents."""
    yield from _rights()
    yield from _systemd()
    yield from _clock(time.time())
    yield from _state_folder(state_dir)
    yield from _identity(state_dir)


def _rights() -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield ok("runs as root")
    else:
        yield warning(f"runs as user {os.geteuid()}", "run it as root where limits and devices are needed")


def _systemd() -> Iterator[Finding]:
    if Path("/run/systemd/system").is_dir():
        yield ok("systemd runs this machine")
    else:
        yield warning("systemd does not run this machine", "let what does start `run` at boot, and after it has ended")


def _clock(now: float) -> Iterator[Finding]:
    told = datetime.fromtimestamp(max(0.0, now), UTC).isoformat(timespec="seconds")
    if now < NOT_BEFORE:
        yield problem(f"the clock says {told}", "set it: `timedatectl set-ntp true`, or `date -s ...`")
    else:
        yield ok(f"the clock says {told}")


def _state_folder(state_dir: Path) -> Iterator[Finding]:
    folder = next(path for path in (state_dir, *state_dir.parents) if path.exists())
    if not os.access(folder, os.W_OK):
        yield problem(f"{folder} cannot be written to", "run this as the user of the agent, mostly root")
        return
    if (kind := file_system(folder, Path("/proc/mounts").read_text())) in IN_MEMORY:
        yield problem(f"{folder} is in memory ({kind})", "give a folder on a disk: --state-dir")
    free = shutil.disk_usage(folder).free
    said = f"{folder} has {free // MIB} MiB free"
    yield ok(said) if free >= LEAST_FREE else problem(said, f"free space: at least {LEAST_FREE // MIB} MiB")
    if state_dir.exists() and state_dir.stat().st_mode & 0o077:
        yield warning(f"{state_dir} can be read by others, keys included", f"chmod 700 {state_dir}")


def file_system(path: Path, mounts: str) -> str:
    """The type of file system on which the path lies, by the text of /proc/mounts (proc(5))."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        _, place, found, *_ = line.split(" ")
        if path.resolve().is_relative_to(place) and len(place) >= best:
            best, kind = len(place), found
    return kind


def _identity(state_dir: Path) -> Iterator[Finding]:
    try:
        identity = load_identity(state_dir)
    except NotEnrolled:
        yield warning("this machine is no device yet", "enroll it with a token of `longshore enroll-token`")
        return
    except InvalidIdentity as error:
        yield problem(str(error), "enroll it again with --force")
        return
    except PermissionError as error:
        yield problem(f"{error.filename} cannot be read", "run this as the user of the agent, mostly root")
        return
    yield ok(f"this machine is the device {identity.device_name} ({identity.device_id})")
    try:
        certificate = _proof(identity)
    except (OSError, ValueError) as error:
        yield problem(f"its key or a certificate cannot be used: {error}", "enroll it again with --force")
        return
    yield from _certificate(certificate, time.time())
    yield from _reach("controller", identity, certificate, identity.agent_address)
    yield from _reach("broker", identity, certificate, identity.broker_address)


def _proof(identity: Identity) -> "x509.Certificate":
    """The device's certificate, by which the other side knows it. Raises as `_context`, and ValueError."""
    from cryptography import x509

    _context(identity)
    return x509.load_pem_x509_certificate(identity.certificate_file.read_bytes())


def _context(identity: Identity) -> ssl.SSLContext:
    """Raises OSError, of which SSLError is one, where the key or a certificate is damaged."""
    context = ssl.create_default_context(cafile=str(identity.ca_file))
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    return context


def _certificate(certificate: "x509.Certificate", now: float) -> Iterator[Finding]:
    end = certificate.not_valid_after_utc.timestamp()
    said = f"its certificate ends on {certificate.not_valid_after_utc.date().isoformat()}"
    if now < certificate.not_valid_before_utc.timestamp():
        yield problem("its certificate is not valid yet by the clock", "set the clock")
    elif now > end:
        mend = "set the clock, or where that is right enroll this machine again: `enroll --force TOKEN`"
        yield problem(f"{said}, which is over by the clock", mend)
    elif now > end - SOON:
        yield warning(said, "the agent renews it while it reaches the controller: see whether it does")
    else:
        yield ok(said)


def _reach(what: str, identity: Identity, certificate: "x509.Certificate", address: str) -> Iterator[Finding]:
    """By a handshake of TLS with the device's own certificate, as the agent makes it."""
    port = parse_address(address)[1]
    try:
        _greet(_context(identity), address)
        yield ok(f"the {what} answers at {address}")
    except ssl.SSLError as error:
        if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in WRONG_DATES:
            yield _dates(what, identity, certificate, address)
            return
        mend = "see the clocks of both, and whether something between them breaks TLS open"
        yield problem(f"the {what} at {address} is not to be trusted: {error.reason or error}", mend)
    except socket.gaierror as error:
        yield problem(f"the name of the {what} at {address} is not known: {error.strerror}", "see the name service")
    except OSError as error:
        mend = f"see the network and firewalls on the way to port {port}; what is stored runs on without it"
        yield problem(f"the {what} does not answer at {address}: {error.strerror or error}", mend)


def _greet(context: ssl.SSLContext, address: str) -> dict[str, Any]:
    """The certificate of the other side, which was verified; nothing is said but the handshake. Raises OSError."""
    host, port = parse_address(address)
    with (
        socket.create_connection((host, port), TIMEOUT) as connection,
        context.wrap_socket(connection, server_hostname=host) as session,
    ):
        return session.getpeercert() or {}


def _dates(what: str, identity: Identity, certificate: "x509.Certificate", address: str) -> Finding:
    """Which of the two is wrong: this machine's clock, or a certificate that has ended."""
    said = f"the certificate of the {what} at {address} is not valid by the clock"
    mend = f"set the clock, or renew the certificate of the {what} where the clock is right"
    context = _context(identity)
    context.verify_flags |= NO_CHECK_TIME
    # Later versions end the handshake before the other side has looked at this machine's certificate.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        told = _greet(context, address)
    except OSError:
        return problem(said, mend)
    said = f"{said}: it is for {told.get('notBefore')} to {told.get('notAfter')}"
    if certificate.not_valid_before_utc.timestamp() <= time.time() <= certificate.not_valid_after_utc.timestamp():
        return problem(said, mend)
    # Both are outside, and the other side, which has a clock of its own, takes this machine's.
    return problem(f"{said}; that of this machine is taken there, so this clock is wrong", "set the clock")
