"""The real grpcurl, where it is on this machine."""

import os
import shutil
from pathlib import Path

# `tools/setup.sh` puts it into the first.
PLACES = (Path(__file__).resolve().parents[2] / ".tools" / "bin", Path.home() / "go" / "bin")
HOW_TO_GET = (
    "grpcurl is missing: tools/setup.sh gets it where `go` is installed and its modules can be fetched; else "
    "`go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest`"
)


def find_grpcurl() -> str | None:
    """Its path; None where there is none."""
    return shutil.which("grpcurl", path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, PLACES)]))
