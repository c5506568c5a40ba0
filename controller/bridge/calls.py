"""The calls that the bridge makes to the controller, off the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from controller.bridge.folders import Work
from controller.bridge.model import Key
from longshore.client import Answer, Client, project
from longshore.failures import LongshoreError

T = TypeVar("T")
# Uploads take long, looks do not: each has threads of its own, so that no look waits behind uploads.
_UPLOADS, _LOOKS = 4, 8


class Calls:
    """Each raises LongshoreError."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._uploads = ThreadPoolExecutor(_UPLOADS, "bridge-upload")
        self._looks = ThreadPoolExecutor(_LOOKS, "bridge-look")

    async def deploy(self, key: Key, work: Work, request_id: str) -> str:
        """Afterwards the controller has it; a repeat with the same request id makes nothing twice. Answers the name of
        what that request made, which is not the file's where it was edited since."""
        owner = project(key.user_id, key.project_id)
        applied = await _in(
            self._uploads,
            lambda: self._client.deploy(work.file, owner, files=work.files, spec=work.spec, request_id=request_id),
        )
        return applied.deployment.name

    async def look(self, key: Key, name: str) -> Answer | None:
        """The deployment; None where there is none of this name, or none any more."""
        return await _in(self._looks, lambda: self._look(key, name))

    async def newest(self, key: Key) -> Answer | None:
        """Of a project of which the bridge knows nothing: the deployment that was made last, whoever made it."""
        return await _in(self._looks, lambda: self._newest(key))

    async def stop(self, key: Key, name: str) -> None:
        """Accepted; nothing where there is none."""
        await _in(self._looks, lambda: self._stop(key, name))

    def close(self) -> None:
        """Ends all calls without waiting for them."""
        self._client.close()
        self._uploads.shutdown(wait=False, cancel_futures=True)
        self._looks.shutdown(wait=False, cancel_futures=True)

    def _look(self, key: Key, name: str) -> Answer | None:
        try:
            return self._client.find_deployment(project(key.user_id, key.project_id), name)
        except LongshoreError as failure:
            if failure.code == "NOT_FOUND":
                return None
            raise

    def _newest(self, key: Key) -> Answer | None:
        found = next(self._client.list_deployments(project(key.user_id, key.project_id)), None)
        return self._client.get_deployment(found.id) if found else None

    def _stop(self, key: Key, name: str) -> None:
        if found := self._look(key, name):
            self._client.stop(found.deployment.id)


async def _in(pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    loop: Any = asyncio.get_running_loop()
    answer: T = await loop.run_in_executor(pool, call)
    return answer
