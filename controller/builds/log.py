"""The lines of one build on their way out: passwords hidden, the last ones kept to explain a failure."""

import re
from collections import deque
from collections.abc import Sequence

from controller.builds.model import OnLine

KEPT_LINES = 2000
# Podman's note that a step's image was stored; images that were there before are noted by "--> Using cache".
STORED = re.compile(r"^--> ([0-9a-f]{11,64})$")
HIDDEN = "***"


class BuildLog:
    """Call it like an OnLine."""

    def __init__(self, on_line: OnLine, hidden: Sequence[str] = ()) -> None:
        self._on_line = on_line
        self._hidden = hidden
        self._recent: deque[str] = deque(maxlen=KEPT_LINES)
        self._images: list[str] = []

    def __call__(self, stream: str, text: str) -> None:
        for secret in self._hidden:
            text = text.replace(secret, HIDDEN)
        if stream == "stdout" and (match := STORED.match(text)):
            self._images.append(match[1])
        elif stream != "system":
            self._recent.append(text)
        self._on_line(stream, text)

    def recent(self) -> list[str]:
        """The last lines of output, without the builder's own."""
        return list(self._recent)

    def made_images(self) -> list[str]:
        """Ids of the images that steps of this build made, in their order."""
        return list(self._images)
