"""Points in time as people write them."""

import re
from datetime import UTC, datetime

# https://reproducible-builds.org/specs/source-date-epoch/
_SECONDS = re.compile(r"[0-9]{1,12}")
# RFC 3339, which needs the zone that Python's ISO 8601 does not.
_WRITTEN = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def moment(text: str) -> str:
    """The moment in RFC 3339, in UTC and whole seconds, from RFC 3339 or from seconds since 1970 as SOURCE_DATE_EPOCH
    has them. Raises ValueError."""
    try:
        if _SECONDS.fullmatch(text):
            found = datetime.fromtimestamp(int(text), UTC)
        elif _WRITTEN.fullmatch(text):
            found = datetime.fromisoformat(text.upper()).astimezone(UTC)
        else:
            raise ValueError(text)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError("expected a time such as 2024-05-01T12:00:00Z, or seconds since 1970") from error
    return found.replace(microsecond=0, tzinfo=None).isoformat() + "Z"
