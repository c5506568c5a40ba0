"""Enrollment, reading and deletion of devices."""

import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

from controller.access import hash_secret, new_id, new_secret
from controller.deployments.assess import reassess_all
from controller.devices import scheduling
from controller.devices.model import Device, EnrollToken, Scheduling, SpentToken
from controller.devices.scheduling import device_event, place_all
from controller.errors import InvalidRequest, NotFound, PermissionDenied, Unauthenticated
from controller.pki import CertificateAuthority
from controller.pki.authority import CLIENT_LIFETIME, InvalidCertificateRequest, key_hash
from controller.spec.fields import LABEL
from controller.store import Store, Transaction
from controller.store.rows import Page
from longshore.errors import Reason

DEFAULT_LIFETIME = timedelta(hours=1)
LONGEST_LIFETIME = timedelta(days=30)
DEVICE_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")

# Ids and names stand for each other wherever a device is named.
DEVICE_ID = re.compile(r"dev-[0-9a-f]{16}")
MOST_LABELS, LONGEST_LABEL = 64, 63
LONGEST_REASON = 200


@dataclass(frozen=True)
class Enrollment:
    """What a machine that wants to become a device says of itself."""

    token_secret: str
    certificate_request: str
    proposed_name: str
    proposed_profile: str
    facts: bytes


class DeviceService:
    def __init__(
        self,
        store: Store,
        ca: CertificateAuthority,
        profiles: Mapping[str, object],
        certificate_life: timedelta = CLIENT_LIFETIME,
    ) -> None:
        self._lifetime = certificate_life
        self._store = store
        self._ca = ca
        self._profiles = profiles

    async def create_token(
        self, name: str, labels: Mapping[str, str], profile: str, lifetime: timedelta
    ) -> tuple[str, float]:
        """The secret of a one-time token, and when it ends. Errors: InvalidRequest."""
        if name:
            _check_name("device_name", name)
        if profile and profile not in self._profiles:
            raise InvalidRequest(
                "profile", f"no target profile {profile!r}; known: {', '.join(sorted(self._profiles))}"
            )
        check_labels(labels)
        lifetime = lifetime or DEFAULT_LIFETIME
        if not timedelta(0) < lifetime <= LONGEST_LIFETIME:
            raise InvalidRequest("lifetime", "expected more than 0 and at most 30 days")
        secret, expires = new_secret(), time.time() + lifetime.total_seconds()
        token = EnrollToken(hash_secret(secret), name, labels, profile, expires)
        await self._store.transact(lambda tx: tx.access.add_enroll_token(token))
        return secret, expires

    async def enroll(self, enrollment: Enrollment) -> tuple[Device, str]:
        """The device and its certificate (PEM). The token is spent only if all goes well; with the same key it is good
        for the same device again, until it would have ended.

        Errors: Unauthenticated, InvalidRequest, AlreadyExists.
        """
        return await self._store.transact(lambda tx: self._enroll(tx, enrollment))

    async def renew(self, device_id: str, certificate_request: str) -> str:
        """A new certificate (PEM) of the device, for the key of the request.

        Errors: PermissionDenied, InvalidRequest.
        """
        if await self._store.transact(lambda tx: tx.devices.get(device_id)) is None:
            raise PermissionDenied(Reason.NO_SUCH_DEVICE, f"no device {device_id}; it has to enroll again")
        return self._sign(certificate_request, device_id)

    def _sign(self, certificate_request: str, device_id: str) -> str:
        try:
            return self._ca.sign_request(certificate_request, device_id, self._lifetime)
        except InvalidCertificateRequest as error:
            raise InvalidRequest("certificate_request", str(error)) from error

    async def find(self, id_or_name: str) -> Device:
        """Raises NotFound."""
        return await self._store.transact(lambda tx: _found(tx, id_or_name))

    async def page(self, profile: str, labels: Mapping[str, str], page: Page) -> tuple[list[Device], str]:
        """Raises InvalidRequest for labels that no device can bear."""
        check_labels(labels)
        return await self._store.transact(lambda tx: tx.devices.page(profile, labels, page))

    def _check_profile(self, field: str, profile: str) -> None:
        if profile not in self._profiles:
            known = ", ".join(sorted(self._profiles))
            raise InvalidRequest(field, f"no target profile {profile!r}; known: {known}")

    async def delete(self, id_or_name: str) -> None:
        """Afterwards it is no device any more. Raises NotFound."""

        def found_and_deleted(tx: Transaction) -> None:
            delete(tx, _found(tx, id_or_name))

        await self._store.transact(found_and_deleted, frees=True)

    async def label(self, id_or_name: str, labels: Mapping[str, str], remove: Collection[str]) -> Device:
        """Sets these labels and removes those. Raises NotFound, and InvalidRequest for what no device can bear."""
        if both := sorted(set(labels) & set(remove)):
            raise InvalidRequest("remove", f"{both[0]} is to be set, too")

        def work(tx: Transaction, device: Device) -> None:
            changed = scheduling.changed_labels(device.labels, labels, remove)
            check_labels(changed)
            scheduling.relabel(tx, device, changed)

        return await self._changed(id_or_name, work)

    async def cordon(self, id_or_name: str, by: str, reason: str) -> Device:
        """Afterwards nothing new is placed there. Raises NotFound."""
        _check_reason(reason)
        return await self._changed(id_or_name, lambda tx, device: scheduling.cordon(tx, device, by, reason))

    async def drain(self, id_or_name: str, by: str, reason: str) -> Device:
        """Afterwards it is wished to run nothing. Raises NotFound."""
        _check_reason(reason)
        return await self._changed(id_or_name, lambda tx, device: scheduling.drain(tx, device, by, reason))

    async def uncordon(self, id_or_name: str) -> Device:
        """Afterwards it has what belongs there. Raises NotFound."""
        return await self._changed(id_or_name, scheduling.uncordon)

    async def evidence(self, devices: Collection[Device]) -> dict[str, str]:
        """By device id, of those that are draining: what they wait for."""
        draining = [device for device in devices if device.scheduling is Scheduling.DRAINING]
        if not draining:
            return {}
        return await self._store.transact(
            lambda tx: {device.id: scheduling.evidence(device, scheduling.left(tx, device.id)) for device in draining}
        )

    async def _changed(self, id_or_name: str, work: Callable[[Transaction, Device], None]) -> Device:
        """The device once `work` is done to it."""

        def found_and_changed(tx: Transaction) -> Device:
            device = _found(tx, id_or_name)
            work(tx, device)
            return _found(tx, device.id)

        return await self._store.transact(found_and_changed)

    def _enrolled_before(self, tx: Transaction, enrollment: Enrollment, secret_hash: str) -> tuple[Device, str]:
        """The device that this token and key have made. Nobody else is told more than that the token is refused."""
        try:
            made = tx.devices.get(tx.access.spent_by(secret_hash, _key_hash(enrollment)))
        except InvalidRequest:
            made = None
        if made is None:
            raise Unauthenticated(Reason.ENROLL_TOKEN_REFUSED, REFUSED)
        return made, self._sign(enrollment.certificate_request, made.id)

    def _enroll(self, tx: Transaction, enrollment: Enrollment) -> tuple[Device, str]:
        secret_hash = hash_secret(enrollment.token_secret)
        token = tx.access.spend_enroll_token(secret_hash)
        if token is None:
            return self._enrolled_before(tx, enrollment, secret_hash)
        key = _key_hash(enrollment)
        name = token.device_name or enrollment.proposed_name
        _check_name("proposed_name", name)
        profile = token.profile or enrollment.proposed_profile
        self._check_profile("proposed_profile", profile)
        device = Device(new_id("dev"), name, profile, enrolled=time.time(), labels=token.labels, facts=enrollment.facts)
        tx.devices.add(device)
        tx.access.note_spent(SpentToken(secret_hash, key, device.id, token.expires))
        tx.events.append(device_event(device, "ENROLLED"))
        place_all(tx)
        return device, self._sign(enrollment.certificate_request, device.id)


REFUSED = "the enroll token is unknown, spent or expired; make a new one: longshore enroll-token"


def _found(tx: Transaction, id_or_name: str) -> Device:
    device = tx.devices.find(id_or_name)
    if device is None:
        raise NotFound(Reason.NO_SUCH_DEVICE, f"no device {id_or_name}")
    return device


def delete(tx: Transaction, device: Device) -> None:
    """Afterwards it is no device any more, and nothing is expected of it."""
    counted = {row.deployment_id for row in tx.workloads.of_device(device.id)}
    tx.workloads.remove_device(device.id)
    tx.devices.remove(device.id)
    tx.events.append(device_event(device, "DELETED"))
    # Where it was left out, it is named no more; where it was waited for, there is nothing to wait for.
    place_all(tx)
    reassess_all(tx, counted)


def _key_hash(enrollment: Enrollment) -> str:
    try:
        return key_hash(enrollment.certificate_request)
    except InvalidCertificateRequest as error:
        raise InvalidRequest("certificate_request", str(error)) from error


def _check_reason(reason: str) -> None:
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise InvalidRequest("reason", f"it is longer than {LONGEST_REASON} characters or not printable")


def check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > MOST_LABELS:
        raise InvalidRequest("labels", f"at most {MOST_LABELS} are allowed")
    for key, value in labels.items():
        if not re.fullmatch(LABEL.removeprefix("^").removesuffix("$"), key):
            raise InvalidRequest("labels", f"{key[:100]!r} is not a label: letters, digits, '.', '_', '/', '-'")
        if len(value) > LONGEST_LABEL or not value.isprintable():
            raise InvalidRequest("labels", f"the value of {key} is longer than {LONGEST_LABEL} or not printable")


def _check_name(field: str, name: str) -> None:
    if not DEVICE_NAME.fullmatch(name):
        raise InvalidRequest(field, f"{name!r} is not a device name: letters, digits, '.', '_', '-'; at most 63")
    if DEVICE_ID.fullmatch(name):
        raise InvalidRequest(field, f"{name!r} looks like the id of a device; choose another name")
