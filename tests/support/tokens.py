"""API tokens of a local controller."""

import subprocess
import sys

from tests.support.sync_stack import SyncStack


def token(stack: SyncStack, name: str, *options: str) -> str:
    """A new API token, as an administrator makes it while the controller runs."""
    argv = [sys.executable, "-m", "controller.admin", "token", "create", name, *options]
    argv += ["--data-dir", str(stack.stack.folder.root)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
