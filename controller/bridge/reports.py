"""The Project Manager's `/status_report`: what its workflow waits for."""

import aiohttp

from controller.bridge.model import Key, Status

# The manager gives calls to its modules as long.
_TIMEOUT = aiohttp.ClientTimeout(total=5)


class NotTaken(Exception):
    """The manager does not answer, or not as it does when it has taken a report."""


class Manager:
    """`address`: of the Project Manager, such as `http://manager:8085`. `container_id`: the name of this module."""

    def __init__(self, address: str, container_id: str) -> None:
        self._url = f"{address.rstrip('/')}/status_report"
        self._container_id = container_id

    async def report(self, key: Key, status: Status) -> None:
        """Afterwards the manager has it. Raises NotTaken."""
        query = {"container_id": self._container_id, "user_id": key.user_id, "project_id": key.project_id}
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.get(self._url, params={**query, "status": status.value}) as answer,
            ):
                said = await answer.json(content_type=None)
                if answer.status != 200 or not isinstance(said, dict) or said.get("status") != 200:
                    raise NotTaken(f"HTTP {answer.status}: {str(said)[:200]}")
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise NotTaken(str(error) or type(error).__name__) from error
