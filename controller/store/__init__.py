"""The controller's memory: SQL behind one interface. Nothing outside of this package speaks SQL."""

from controller.store.signals import (
    BuildCancelled,
    BuildEnded,
    BuildsQueued,
    DesiredChanged,
    DeviceDeleted,
    EventsAppended,
    JoinDue,
    Signal,
)
from controller.store.store import Store, Transaction, open_store

__all__ = [
    "BuildCancelled",
    "BuildEnded",
    "BuildsQueued",
    "DesiredChanged",
    "DeviceDeleted",
    "EventsAppended",
    "JoinDue",
    "Signal",
    "Store",
    "Transaction",
    "open_store",
]
