"""The last output of each deployment's previous instance: kept by the agent, since it goes with the instance.

A file for each deployment; a line of it is `<seconds since the epoch> <stream> <text>`.
"""

import collections
import contextlib
from collections.abc import AsyncIterator, Iterator, Set
from pathlib import Path
from urllib.parse import quote

import structlog

from edge_agent.runtime.backend import LogLine, LogQuery

log = structlog.get_logger()

# What is kept of one instance: no more of either.
KEPT_BYTES = 1024 * 1024
KEPT_LINES = 10_000
SUFFIX = ".log"


class KeptLogs:
    """In `folder`. Losing them loses these lines and nothing else: a disk that takes none is told, and all goes on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def keep(self, deployment_id: str, lines: AsyncIterator[LogLine]) -> None:
        """The last of these lines, in place of what was kept before."""
        kept: collections.deque[bytes] = collections.deque(maxlen=KEPT_LINES)
        size = 0
        async for line in lines:
            size -= len(kept[0]) if len(kept) == KEPT_LINES else 0
            kept.append(_encoded(line))
            size += len(kept[-1])
            while size > KEPT_BYTES:
                size -= len(kept.popleft())
        self._write(deployment_id, b"".join(kept))

    def _write(self, deployment_id: str, content: bytes) -> None:
        path = self._path(deployment_id)
        fresh = path.with_suffix(".new")
        try:
            # What a service says is for its own user's eyes.
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_bytes(content)
            fresh.replace(path)
        except OSError as error:
            _remove(fresh)
            log.warning("log_not_kept", deployment=deployment_id, error=str(error))

    def read(self, deployment_id: str, query: LogQuery) -> Iterator[LogLine] | None:
        """Those of the lines that are asked for; None where nothing is kept."""
        try:
            content = self._path(deployment_id).read_bytes()
        except OSError:
            return None
        lines = (line for line in _decoded(content) if line.time >= query.since)
        return iter(collections.deque(lines, maxlen=query.tail or None))

    def forget(self, deployment_id: str) -> None:
        """Nothing is kept of it any more. Idempotent."""
        _remove(self._path(deployment_id))

    def keep_only(self, deployment_ids: Set[str]) -> None:
        """Nothing is kept of others."""
        known = {self._path(deployment_id).name for deployment_id in deployment_ids}
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.name not in known:
                _remove(path)

    def _path(self, deployment_id: str) -> Path:
        return self._folder / f"{quote(deployment_id, safe='')}{SUFFIX}"


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _encoded(line: LogLine) -> bytes:
    return f"{line.time!r} {line.stream} {line.text}\n".encode(errors="replace")


def _decoded(content: bytes) -> Iterator[LogLine]:
    for line in content.split(b"\n")[:-1]:
        # What a power cut has spoiled is left out.
        with contextlib.suppress(ValueError):
            time, stream, text = line.decode(errors="replace").split(" ", 2)
            yield LogLine(float(time), stream, text)
