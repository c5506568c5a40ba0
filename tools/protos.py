"""Generates the Python code of the contract beside the .proto files; with --check, says whether it is fresh."""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "protos"
PROTOS = sorted((ROOT / "longshore" / "v1").glob("*.proto"))


def generate(into: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", f"--python_out={into}"]
    command += [f"--grpc_python_out={into}", f"--mypy_out=quiet:{into}", f"--mypy_grpc_out=quiet,only_async:{into}"]
    plugins = Path(sys.executable).parent
    command += [f"--plugin={name}={plugins / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    subprocess.run([*command, *map(str, PROTOS)], check=True)


def stale(fresh: Path) -> list[str]:
    names = {path.relative_to(fresh) for path in fresh.rglob("*_pb2*")}
    kept = {path.relative_to(ROOT) for path in ROOT.rglob("*_pb2*") if "__pycache__" not in path.parts}
    changed = {name for name in names & kept if (fresh / name).read_bytes() != (ROOT / name).read_bytes()}
    return sorted(map(str, (names ^ kept) | changed))


def main() -> None:
    if sys.argv[1:] != ["--check"]:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        if names := stale(Path(folder)):
            sys.exit(f"protos: not fresh: {', '.join(names)}; run `make protos` and commit")


if __name__ == "__main__":
    main()
