"""Wheels by digest: fetched once from where the lock says, checked, and kept for the next bundles."""

import asyncio
import base64
import hashlib
import os
import shutil
import ssl
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import proxy_bypass

import aiohttp

from controller.builds.bundles.lock import LockedWheel
from controller.builds.host_settings import HostSettings
from controller.builds.log import BuildLog
from controller.builds.model import BuildFailed
from controller.files import sync_folder

PARALLEL = 6
READ_SIZE = 2**20
CONNECT, SILENCE = 15.0, 60.0
STEP = "fetch the wheels"
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")


class WheelStore:
    """The folder; several builds may use it at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, wheel: LockedWheel) -> Path:
        return self._folder / wheel.sha256[:2] / wheel.sha256

    async def fetch(self, wheels: Iterable[LockedWheel], settings: HostSettings, log: BuildLog) -> int:
        """Afterwards all of them are here. Returns how many bytes came. Raises BuildFailed."""
        missing = [wheel for wheel in wheels if not await asyncio.to_thread(self._present, wheel)]
        if not missing:
            return 0
        slots = asyncio.Semaphore(PARALLEL)
        async with AsyncExitStack() as stack:
            source = await stack.enter_async_context(_Source(settings))

            async def one(wheel: LockedWheel) -> int:
                async with slots:
                    size = await self._fetch(wheel, source)
                log("system", f"fetched {wheel.file}, {size} bytes")
                return size

            return await _all_of([asyncio.ensure_future(one(wheel)) for wheel in missing])

    def take(self, folder: Path) -> None:
        """Keeps the wheels that were made in this folder. Blocks. Raises OSError."""
        for file in folder.glob("*.whl"):
            with file.open("rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            path = self._folder / sha256[:2] / sha256
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_name(f"{sha256}.{os.getpid()}-{folder.parent.name}")
                shutil.copyfile(file, partial)
                _keep(partial, path)

    def recover(self) -> None:
        """Removes what a killed controller had begun to fetch. Before the first build; blocks."""
        for path in self._folder.glob("*/*.*"):
            path.unlink(missing_ok=True)

    def _present(self, wheel: LockedWheel) -> bool:
        try:
            # The time says which wheels are of use, for the housekeeping.
            os.utime(self.path(wheel))
        except FileNotFoundError:
            return False
        return True

    async def _fetch(self, wheel: LockedWheel, source: "_Source") -> int:
        path = self.path(wheel)
        # Another build may be fetching the same wheel; each has a file of its own.
        partial = path.with_name(f"{path.name}.{os.getpid()}-{id(asyncio.current_task())}")
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        try:
            size = await source.download(wheel, partial)
            await asyncio.to_thread(_keep, partial, path)
        except OSError as error:
            raise BuildFailed(
                "DiskFull", f"cannot keep {wheel.file}: {error}; free space", step=STEP, retryable=True
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        return size


async def _all_of(tasks: list["asyncio.Task[int]"]) -> int:
    """The sum. The first failure ends all of them, and is raised."""
    try:
        return sum(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _keep(partial: Path, path: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


@dataclass(frozen=True)
class _Proxies:
    by_scheme: Mapping[str, str]

    def of(self, url: SplitResult) -> str | None:
        if proxy_bypass(url.netloc.rpartition("@")[2], dict(self.by_scheme)):
            return None
        return self.by_scheme.get(url.scheme)


class _Source:
    """Downloads with this machine's proxies, certificates, and passwords of package indexes."""

    def __init__(self, settings: HostSettings) -> None:
        environment = settings.environment
        names = {"https": "https_proxy", "http": "http_proxy", "no": "no_proxy"}
        self._proxies = _Proxies({key: environment[name] for key, name in names.items() if environment.get(name)})
        self._passwords = _passwords(environment)
        self._insecure = set(environment.get("UV_INSECURE_HOST", "").split())
        self._trust = ssl.create_default_context()
        if settings.ca_bundle is not None:
            self._trust.load_verify_locations(settings.ca_bundle)

    async def __aenter__(self) -> "_Source":
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
        self._session = aiohttp.ClientSession(timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def download(self, wheel: LockedWheel, file: Path) -> int:
        """Writes the wheel's content, which has the hash of the lock. Raises BuildFailed, OSError of the disk."""
        url = urlsplit(wheel.url)
        if url.scheme not in ("http", "https"):
            raise BuildFailed("StepFailed", f"{wheel.file} lies at {wheel.url}, which is no web address", step=STEP)
        try:
            return await self._download(wheel, url, file)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(wheel, url, str(error) or type(error).__name__) from error

    async def _download(self, wheel: LockedWheel, url: SplitResult, file: Path) -> int:
        trust = False if {url.hostname, url.netloc} & self._insecure else self._trust
        headers = self._passwords.get(url.netloc.rpartition("@")[2])
        digest, size = hashlib.sha256(), 0
        async with self._session.get(wheel.url, headers=headers, ssl=trust, proxy=self._proxies.of(url)) as answer:
            if answer.status != 200:
                raise _unreachable(wheel, url, f"HTTP status {answer.status}")
            with file.open("wb") as out:
                async for piece in answer.content.iter_chunked(READ_SIZE):
                    digest.update(piece)
                    size += len(piece)
                    await asyncio.to_thread(out.write, piece)
        if digest.hexdigest() != wheel.sha256:
            raise _unreachable(wheel, url, "its content is not what the index announced")
        return size


def _unreachable(wheel: LockedWheel, url: SplitResult, cause: str) -> BuildFailed:
    return BuildFailed(
        "PackageIndexUnreachable",
        f"cannot fetch {wheel.file} from {url.hostname}: {cause}; it is tried again, "
        "check proxy, index and CA settings",
        step=STEP,
        retryable=True,
    )


def _passwords(environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Headers by host and port of the package indexes, whose files lie on the same host where they need a password."""
    found = {}
    for value in (environment.get(name, "") for name in INDEX_VARIABLES):
        for url in value.split():
            # An index may have a name: NAME=URL.
            parts = urlsplit(url if "=" not in url.partition("://")[0] else url.partition("=")[2])
            if parts.username is not None:
                user, password = unquote(parts.username), unquote(parts.password or "")
                token = base64.b64encode(f"{user}:{password}".encode()).decode()
                found[parts.netloc.rpartition("@")[2]] = {"Authorization": f"Basic {token}"}
    return found
