"""Named volumes: folders that Podman keeps for a deployment until that is removed."""

import json
from collections.abc import Mapping
from typing import Any

from edge_agent.podman.connection import Connection
from edge_agent.podman.errors import ApiError
from edge_agent.podman.spec import LABEL, owner_label, volume_name
from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.model import Workload


class Volumes:
    """The volumes of one agent; others are never touched."""

    def __init__(self, connection: Connection, owner: str) -> None:
        self._connection = connection
        self._owner = owner

    async def ensure(self, workload: Workload) -> None:
        """Afterwards each volume of the workload exists. A new one belongs to the first user that mounts it."""
        known = await self._names(workload.deployment_id) if workload.volumes else set()
        for volume in workload.volumes:
            name = volume_name(workload.deployment_id, volume.name)
            if name not in known:
                labels = {f"{LABEL}.owner": self._owner, f"{LABEL}.deployment": workload.deployment_id}
                await self._call("POST", "volumes/create", body={"Name": name, "Labels": labels})

    async def remove(self, deployment_id: str | None) -> None:
        """Nothing of the deployment's volumes is left; of all deployments' where none is named. Idempotent."""
        for name in await self._names(deployment_id):
            await self._call("DELETE", f"volumes/{name}")

    async def _names(self, deployment_id: str | None) -> set[str]:
        filters = json.dumps({"label": [owner_label(self._owner)]})
        found = await self._call("GET", "volumes/json", params={"filters": filters})
        return {str(volume["Name"]) for volume in found or () if self._owns(volume, deployment_id)}

    def _owns(self, volume: Mapping[str, Any], deployment_id: str | None) -> bool:
        """Looked at here: of several labels in a filter, Podman 4 takes one that matches for enough."""
        labels = volume.get("Labels") or {}
        named = deployment_id is None or labels.get(f"{LABEL}.deployment") == deployment_id
        return named and labels.get(f"{LABEL}.owner") == self._owner

    async def _call(self, method: str, path: str, **given: Any) -> Any:
        try:
            return await self._connection.call(method, path, **given)
        except ApiError as error:
            if method == "DELETE" and error.status == 404:
                return None
            raise BackendError("VolumeFailed", f"podman: {error}", retryable=True) from error
