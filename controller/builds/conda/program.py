"""Resolves conda packages and unpacks them into a cache: `python -m controller.builds.conda.program WISH ANSWER`.

A program of its own: it takes the memory and the processor for as long as it runs, and is ended by a signal. Files of a
package end only below a folder named after its digest, and nothing of them is run.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rattler import (
    BuildString,
    Client,
    Gateway,
    GenericVirtualPackage,
    PackageName,
    PackageRecord,
    RepoDataRecord,
    Subdir,
    Version,
    solve,
)
from rattler.exceptions import (
    FetchRepoDataError,
    GatewayError,
    InvalidChannelError,
    InvalidMatchSpecError,
    InvalidPackageNameError,
    SolverError,
)
from rattler.package_streaming import download_and_extract

from controller.builds.conda.model import Answer, Package, Problem, Wish
from controller.files import sync_below

MISSING = re.compile(r"^Cannot solve the request because of: No candidates were found for (.+?)\.$", re.MULTILINE)
NO_CHANNEL = re.compile(r"\b404\b|not found", re.IGNORECASE)
BAD_ARCHIVE = re.compile(
    r"unpack|unsupported package archive|invalid zip|corrupt|malformed|header missing", re.IGNORECASE
)
NO_SPACE = re.compile(r"no space left|disk quota", re.IGNORECASE)
AT_A_TIME = 8
# What a package's address may be: a channel's description of itself is anybody's.
FETCHED = ("https://", "http://")


async def answer(wish: Wish) -> Answer:
    client = Client.default_client(user_agent="longshore")
    try:
        records = await _resolved(wish, client)
        print(f"resolved {len(records)} conda packages", flush=True)
        return Answer(await _unpacked(records, wish, client))
    except SolverError as error:
        print(str(error).strip())
        missing = MISSING.search(str(error))
        return Answer((), Problem.MISSING, missing[1]) if missing else Answer((), Problem.CONFLICT)
    except (InvalidMatchSpecError, InvalidPackageNameError, InvalidChannelError) as error:
        print(error)
        return Answer((), Problem.INVALID, str(error))
    except ValueError as error:
        print(error)
        return Answer((), Problem.UNUSABLE, str(error).partition("\n")[0])
    except (GatewayError, FetchRepoDataError, OSError) as error:
        print(error)
        return Answer((), _trouble(str(error)), _cause(str(error)))


def _cause(text: str) -> str:
    """The innermost of what the library says one below the other, and what it was about."""
    lines = [line.strip().removeprefix("Caused by: ") for line in text.splitlines() if line.strip()]
    about = next((line for line in lines if "://" in line), "")
    return ": ".join(dict.fromkeys(part for part in (about, *lines[-1:]) if part))


def _trouble(text: str) -> Problem:
    if NO_SPACE.search(text):
        return Problem.DISK_FULL
    return Problem.NO_CHANNEL if NO_CHANNEL.search(text) else Problem.UNREACHABLE


async def _resolved(wish: Wish, client: Client) -> list[RepoDataRecord]:
    """In the order in which they are to be installed."""
    virtual = [
        GenericVirtualPackage(PackageName(name), Version(version), BuildString(build))
        for name, version, build in wish.virtual
    ]
    gateway = Gateway(cache_dir=Path(wish.cache, "channels"), client=client)
    records = await solve(
        list(wish.channels), list(wish.specs), gateway=gateway, platforms=[Subdir(wish.subdir), Subdir("noarch")],
        virtual_packages=virtual, channel_relations="disabled",
    )  # fmt: skip
    order = {record.name.normalized: place for place, record in enumerate(PackageRecord.sort_topologically([*records]))}
    return sorted(records, key=lambda record: order[record.name.normalized])


async def _unpacked(records: Sequence[RepoDataRecord], wish: Wish, client: Client) -> tuple[Package, ...]:
    turns = asyncio.Semaphore(AT_A_TIME)

    async def one(record: RepoDataRecord) -> Package:
        # What nobody vouches for is fetched each time.
        above = Path(wish.cache if record.sha256 else wish.scratch)
        async with turns:
            return Package(_described(record), await _unpack(record, above / "packages", Path(wish.scratch), client))

    return tuple(await asyncio.gather(*map(one, records)))


def _described(record: RepoDataRecord) -> dict[str, object]:
    return {
        **json.loads(record.to_json()), "fn": record.file_name, "url": record.url, "channel": record.channel,
    }  # fmt: skip


async def _unpack(record: RepoDataRecord, packages: Path, scratch: Path, client: Client) -> Path:
    """The folder of its files. One that is there is whole: it gets its name when it is."""
    if not record.url.startswith(FETCHED):
        raise ValueError(f"{record.file_name} is invalid: it is not at an address of the web: {record.url}")
    folder = packages / (record.sha256 or hashlib.sha256(record.url.encode()).digest()).hex()
    if folder.is_dir():
        return folder
    print(f"fetching {record.file_name}", flush=True)
    packages.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=scratch))
    try:
        digest = await _fetch(record, unfinished, client)
        if record.sha256 not in (None, digest):
            raise ValueError(f"{record.file_name} is invalid: its channel says that it has another digest")
        # A power cut would leave its name, and not what is in its files.
        await asyncio.to_thread(sync_below, unfinished)
        with contextlib.suppress(OSError):
            unfinished.rename(folder)
        if not folder.is_dir():
            raise OSError(f"{record.file_name} cannot be kept in {packages}")
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


async def _fetch(record: RepoDataRecord, folder: Path, client: Client) -> bytes:
    """The digest of what was unpacked."""
    try:
        digest, _ = await download_and_extract(client, record.url, folder)
    except OSError as error:
        if NO_SPACE.search(str(error)) or not BAD_ARCHIVE.search(str(error)):
            raise
        # The library names places of this machine.
        raise ValueError(f"{record.file_name} is invalid: its archive cannot be unpacked") from error
    return digest


def main() -> None:
    wish, target = Wish.read(Path(sys.argv[1])), Path(sys.argv[2])
    asyncio.run(answer(wish)).write(target)
    sys.stdout.flush()
    # The library's threads may still be about to give back what the interpreter takes down at its end.
    os._exit(0)


if __name__ == "__main__":
    main()
