"""A build context as a folder."""

import tarfile
import tempfile
from pathlib import Path

from controller.cli.errors import UsageProblem
from longshore.client import Client


def unpack(client: Client, build_id: str, target: str, folder: Path) -> int:
    """Afterwards the folder, new or empty before, holds the context; returns the count of its files.

    Nothing is written outside of it, whatever the archive says. Raises UsageProblem where it is in use, and where the
    archive is broken.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageProblem(f"{folder} is in use; name a new or empty folder, or FILE.tar")
    if not hasattr(tarfile, "data_filter"):
        raise UsageProblem("this Python unpacks no archive safely (3.11.4 does); name FILE.tar")
    with tempfile.TemporaryDirectory(prefix="longshore-") as temporary:
        archive = Path(temporary) / "context.tar"
        client.download_build_context(build_id, archive, target=target)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tarfile.open(archive) as tar:
                members = tar.getmembers()
                tar.extractall(folder, members, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise UsageProblem(f"cannot unpack the context into {folder}: {error}") from error
    return sum(member.isfile() for member in members)
