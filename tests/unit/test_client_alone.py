"""The Python client needs gRPC and protobuf, and nothing else that was installed."""

import subprocess
import venv
from importlib.metadata import files
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# And what gRPC itself asks for.
ALLOWED = ("grpcio", "protobuf", "typing_extensions")
USE = """
import sys
from longshore import client, failures, outcome
from longshore.v1 import details_pb2
made = client.Client("127.0.0.1:1", "token", None, patience=0, timeout=1)
try:
    made.get_build("x")
except failures.LongshoreError as failure:
    print(failure.code)
made.close()
print(sorted({name.partition(".")[0] for name in sys.modules} & {"controller", "yaml", "pydantic", "paho", "typer"}))
"""


def test_the_client_works_where_nothing_but_grpc_and_protobuf_is_installed(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", symlinks=True)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    for name in ALLOWED:
        for file in files(name) or []:
            if file.suffix != ".pyc" and ".." not in file.parts:
                link = site / file
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(str(file.locate())))
    (site / "longshore").symlink_to(ROOT / "protos" / "longshore")
    python = tmp_path / "env" / "bin" / "python"
    done = subprocess.run(
        [python, "-I", "-c", USE], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert done.stdout.split("\n")[:2] == ["UNAVAILABLE", "[]"], done.stderr
