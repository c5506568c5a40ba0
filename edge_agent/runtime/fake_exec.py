"""Commands inside the instances of a `FakeBackend`: a handful of programs that live in memory."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from edge_agent.runtime.backend import TerminalSize

KILLED, NOT_FOUND = 137, 127
# Pieces that wait for who is slow; then the other side has to wait.
WINDOW = 4
PIECE = 32 * 1024


class FakeExec:
    """`ExecSession` of one of these programs:

    - `cat` gives back its input; `both` says "out" on one stream and "err" on the other; `exit CODE` ends with it;
    - `size` tells the size of its terminal at first and after each change; `much BYTES` writes so many "x";
    - `lasts` runs until it is killed. Any other does not exist.
    """

    def __init__(
        self, command: Sequence[str], terminal: TerminalSize | None, ended: Callable[["FakeExec"], None]
    ) -> None:
        self.command = tuple(command)
        self.size = terminal
        self._input: asyncio.Queue[bytes] = asyncio.Queue(WINDOW)
        self._output: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(WINDOW)
        self._resized = asyncio.Event()
        self._ended = ended
        self._over = False
        self.exit_code: int | None = None
        self._task = asyncio.create_task(self._run(), name=f"fake-{command[0]}")

    async def read(self) -> tuple[str, bytes] | None:
        said = None if self._over else await self._output.get()
        self._over = said is None
        return said

    async def write(self, data: bytes) -> None:
        giving = asyncio.ensure_future(self._input.put(data))
        try:
            await asyncio.wait([giving, self._task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            giving.cancel()

    async def resize(self, size: TerminalSize) -> None:
        if self.size is not None:
            self.size = size
            self._resized.set()

    async def wait(self) -> int:
        while await self.read() is not None:
            pass
        assert self.exit_code is not None
        return self.exit_code

    async def close(self) -> None:
        self.kill()
        self._task.cancel()
        self._over = True

    def kill(self) -> None:
        """As SIGKILL: nothing more comes of it."""
        if self.exit_code is None:
            self._task.cancel()
            self._note_end(KILLED)
            # What nobody has read goes on to be read, as far as there is room for the end behind it.
            if self._output.full():
                self._output.get_nowait()
            self._output.put_nowait(None)

    def _note_end(self, code: int) -> None:
        self.exit_code = code
        self._ended(self)

    async def _run(self) -> None:
        name, *arguments = self.command
        programs: dict[str, Callable[..., Coroutine[None, None, int]]] = {
            "cat": self._cat,
            "both": self._both,
            "exit": self._exit,
            "size": self._tell_size,
            "much": self._much,
            "lasts": self._last,
        }
        program = programs.get(name)
        code = await program(*arguments) if program else NOT_FOUND
        self._note_end(code)
        await self._output.put(None)

    async def _cat(self) -> int:
        while data := await self._input.get():
            await self._say(data)
        return 0

    async def _both(self) -> int:
        await self._say(b"out\n")
        await self._say(b"err\n", "stderr")
        return 0

    async def _exit(self, code: str) -> int:
        return int(code)

    async def _tell_size(self) -> int:
        while self.size is not None:
            self._resized.clear()
            await self._say(f"{self.size.rows} {self.size.columns}\r\n".encode())
            await self._resized.wait()
        return 1

    async def _much(self, total: str) -> int:
        left = int(total)
        while left:
            piece = min(left, PIECE)
            await self._say(b"x" * piece)
            left -= piece
        return 0

    async def _last(self) -> int:
        await asyncio.Event().wait()
        return 0

    async def _say(self, data: bytes, stream: str = "stdout") -> None:
        await self._output.put((stream, data))
