"""The lines of one build on their way out: secrets hidden, the last ones kept to explain a failure."""

import re
from collections import deque
from collections.abc import Sequence

from controller.builds.masking import Mask
from controller.builds.model import OnLine
from controller.builds.outcome import readable_line
from controller.builds.progress_lines import MAX_LINE

KEPT_LINES = 2000
# Podman's notes that a step's image was there before, and which image the step ended with (a shorter id).
CACHED = re.compile(r"^--> Using cache ([0-9a-f]{64})$")
STORED = re.compile(r"^--> ([0-9a-f]{11,64})$")
# Podman gives the platform to every build, whether the Containerfile asks for it or not.
NOISE = re.compile(r"^\[Warning\] one or more build args were not consumed")


class BuildLog:
    """Call it like an OnLine."""

    def __init__(self, on_line: OnLine, hidden: Sequence[bytes | str] = ()) -> None:
        self._on_line = on_line
        self.mask = Mask(hidden)
        # By stream, the end of a cut line: a secret may go on in the next piece of it.
        self._held: dict[str, str] = {}
        self._recent: deque[str] = deque(maxlen=KEPT_LINES)
        self._images: list[str] = []
        self._cached: list[str] = []

    def __call__(self, stream: str, text: str) -> None:
        goes_on = len(text) == MAX_LINE and stream != "system"
        text = self._held.pop(stream, "") + text
        # Bounded: a secret that repeats itself without end is let go somewhere.
        cut = goes_on and len(text) < 4 * (MAX_LINE + self.mask.longest)
        end = self.mask.safe_cut(text) if cut else len(text)
        masked = self.mask(text[:end])
        for begin in range(0, len(masked), MAX_LINE):
            self._line(stream, masked[begin : begin + MAX_LINE])
        if text[end:]:
            self._held[stream] = text[end:]

    def recent(self) -> list[str]:
        """The last lines of output, without the builder's own."""
        return list(self._recent)

    def made_images(self) -> list[str]:
        """Ids of the images that steps of this build made, in their order."""
        return [image for image in self._images if not any(known.startswith(image) for known in self._cached)]

    def step_images(self) -> list[str]:
        """Ids of all images on which steps of this build stand."""
        return [*self._images, *self._cached]

    def _line(self, stream: str, text: str) -> None:
        if not text or NOISE.match(text):
            return
        if stream == "stdout" and (match := CACHED.match(text)):
            self._cached.append(match[1])
        elif stream == "stdout" and (match := STORED.match(text)):
            self._images.append(match[1])
        elif stream != "system":
            self._recent.append(text)
        self._on_line(stream, readable_line(text))
