"""Sessions that the controller asked for: a person reads a log, runs a command inside an instance, or talks to a port.

One module for each kind; `serving` keeps them apart, `wire` is what each of them speaks through.
"""

from edge_agent.runtime.channels.serving import MAX_SESSIONS, Channels

__all__ = ["MAX_SESSIONS", "Channels"]
