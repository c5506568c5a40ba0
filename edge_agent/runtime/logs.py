"""How the agent logs: one line of `key=value` pairs for each event, on standard error."""

import logging
import sys

# structlog takes rich along wherever it is installed, which costs an agent 7 MB that it never uses.
if "structlog" not in sys.modules and "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog

    del sys.modules["rich"]
else:
    import structlog


def configure_logging(level: str) -> None:
    """Events of this level and above are logged from now on."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _traceback_last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        stream=sys.stderr, level=max(number, logging.WARNING), format="level=%(levelname)s event=%(message)s"
    )


def _traceback_last(logger: object, name: str, event: "structlog.typing.EventDict") -> str:
    """One line of logfmt; a traceback keeps its lines below it, where people can read it."""
    traceback = event.pop("exception", None)
    line: str = _logfmt(logger, name, event)
    return f"{line}\n{traceback}" if traceback else line


_logfmt = structlog.processors.LogfmtRenderer(
    key_order=["timestamp", "level", "event"], sort_keys=False, bool_as_flag=False
)
