"""Which Longshore this is."""

from importlib import metadata


def version() -> str:
    """The version of the installed distribution; "unknown" where it runs without being installed."""
    try:
        return metadata.version("longshore")
    except metadata.PackageNotFoundError:
        return "unknown"
