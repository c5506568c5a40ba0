"""Calls into NVIDIA's library, against a library of the same calls that was made for this."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_agent.runtime.facts.nvml import Gpu, read_gpus

SOURCE = Path(__file__).parents[1] / "support" / "nvml_stub.c"
COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")


def compiled(folder: Path, *defined: str) -> str:
    library = folder / "libnvidia-ml.so.1"
    options = [f"-D{name}" for name in defined]
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-Wall", "-Werror", *options, "-o", library, SOURCE], check=True)
    return str(library)


def test_all_that_the_driver_tells_of_its_gpus_is_read(tmp_path: Path) -> None:
    library = compiled(tmp_path)
    for _ in range(2):
        assert read_gpus(library) == [
            Gpu("NVIDIA GeForce RTX 4090", 1, 25757220864, 1000000000, "550.54.15", 87),
            Gpu("NVIDIA RTX A2000", 0, 12884901888, 0, "550.54.15", None),
        ]
    # The library is not kept in use, which would keep the GPUs awake.
    assert ctypes.CDLL(library).inits_left() == 0


@pytest.mark.parametrize("lacking", ["NO_DRIVER", "OLD"])
def test_a_library_that_cannot_answer_tells_of_no_gpu(tmp_path: Path, lacking: str) -> None:
    library = compiled(tmp_path, lacking)
    assert read_gpus(library) == []
    assert ctypes.CDLL(library).inits_left() == 0


def test_no_library_tells_of_no_gpu(tmp_path: Path) -> None:
    assert read_gpus(str(tmp_path / "libnvidia-ml.so.1")) == []
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"not a library")
    assert read_gpus(str(tmp_path / "libnvidia-ml.so.1")) == []
