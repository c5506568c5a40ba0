"""A clock that is wrong for one process, until the test sets it."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("wrong_clock.c")
YEAR = 365 * 86400


class WrongClock:
    """Of processes that are started with `env`, and of what they start."""

    def __init__(self, folder: Path) -> None:
        """Skips the test where there is no C compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler")
        self._file = folder / "wrong-clock"
        self._library = folder / "wrong_clock.so"
        options = ["-shared", "-fPIC", "-Wall", "-Werror", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run([compiler, *options], check=True)
        self.set(0)

    @property
    def env(self) -> Mapping[str, str]:
        return {"LD_PRELOAD": str(self._library), "WRONG_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """It is so much ahead from now on."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds}\n")
        fresh.replace(self._file)
