"""The controller's memory: SQL behind one interface. Nothing outside of this package speaks SQL."""

from controller.store.signals import BuildsQueued, DesiredChanged, EventsAppended, Signal
from controller.store.store import Store, Transaction, open_store

__all__ = ["BuildsQueued", "DesiredChanged", "EventsAppended", "Signal", "Store", "Transaction", "open_store"]
