"""Starts the server from the files beside this one, wherever they lie."""

import importlib
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

if __name__ == "__main__":
    # The folder is a package; nothing that a user installed may take its name.
    sys.path[0] = str(FOLDER.parent)
    sys.exit(importlib.import_module(f"{FOLDER.name}.server").main(sys.argv[1:]))
