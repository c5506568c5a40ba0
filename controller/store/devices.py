"""Devices."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from controller.devices.model import Device, Presence, Scheduling
from controller.errors import AlreadyExists
from controller.store import schema
from controller.store.rows import Page, page_token, paged
from controller.store.signals import DesiredChanged, DeviceDeleted, Signal
from longshore.errors import Reason

TABLE = schema.devices


class DeviceTable:
    def __init__(self, connection: Connection, signals: list[Signal]) -> None:
        self._connection = connection
        self._signals = signals

    def add(self, device: Device) -> None:
        """Raises AlreadyExists where the name is taken."""
        values = {**vars(device), "labels": dict(device.labels)}
        values.update(presence=device.presence.value, scheduling=device.scheduling.value)
        try:
            self._connection.execute(insert(TABLE).values(**values))
        except IntegrityError as error:
            message = f"a device named {device.name} is enrolled already; choose another name"
            raise AlreadyExists(Reason.NAME_TAKEN, message) from error

    def get(self, device_id: str) -> Device | None:
        return self._one(TABLE.c.id == device_id)

    def find(self, id_or_name: str) -> Device | None:
        return self._one(or_(TABLE.c.id == id_or_name, TABLE.c.name == id_or_name))

    def change(self, device_id: str, **values: Any) -> None:
        """Sets these columns."""
        self._connection.execute(update(TABLE).where(TABLE.c.id == device_id).values(**values))

    def advance(self, device_id: str) -> int:
        """The device's desired state has changed: its next generation."""
        self._connection.execute(update(TABLE).where(TABLE.c.id == device_id).values(generation=TABLE.c.generation + 1))
        generation = int(self._connection.scalar(select(TABLE.c.generation).where(TABLE.c.id == device_id)) or 0)
        self._signals.append(DesiredChanged(device_id, generation))
        return generation

    def remove(self, device_id: str) -> None:
        """It is no device any more; what it should run is removed before."""
        self._connection.execute(delete(TABLE).where(TABLE.c.id == device_id))
        self._signals.append(DeviceDeleted(device_id))

    def overtake(self, device_id: str, generation: int) -> None:
        """The device holds a generation that this database never gave: the next one is greater than that."""
        self.change(device_id, generation=generation)
        self.advance(device_id)

    def matching(self, profile: str, labels: Mapping[str, str]) -> list[Device]:
        """All devices of a profile ("" for any) that carry all of these labels."""
        query = select(TABLE).order_by(TABLE.c.enrolled)
        if profile:
            query = query.where(TABLE.c.profile == profile)
        devices = (_device(row) for row in self._connection.execute(query).mappings())
        return [device for device in devices if labels.items() <= device.labels.items()]

    def page(self, profile: str, labels: Mapping[str, str], page: Page) -> tuple[list[Device], str]:
        """Newest first, and the token of the next page."""
        query = paged(select(TABLE), TABLE, page, order="enrolled")
        if profile:
            query = query.where(TABLE.c.profile == profile)
        for key, value in labels.items():
            query = query.where(TABLE.c.labels[key].as_string() == value)
        found = [_device(row) for row in self._connection.execute(query).mappings()]
        shown = found[: page.limit]
        return shown, page_token(shown[-1].enrolled, shown[-1].id) if len(found) > len(shown) else ""

    def _one(self, condition: Any) -> Device | None:
        row = self._connection.execute(select(TABLE).where(condition)).mappings().first()
        return None if row is None else _device(row)


def _device(row: RowMapping) -> Device:
    return Device(**{**row, "presence": Presence(row["presence"]), "scheduling": Scheduling(row["scheduling"])})
