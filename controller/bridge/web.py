"""The HTTP side: the paths that TANGO's Project Manager asks, and one more with all that does not fit its answers."""

import dataclasses

import structlog
from aiohttp import web

from controller.bridge.bridge import Bridge, UnknownProject
from controller.bridge.folders import NotUsable
from controller.bridge.model import Key, Status

log = structlog.get_logger()
STARTED, FINISHED, ERROR = "started", "finished", "error"


class Pages:
    """Answers of the first three are one word; HTTP 404 is for projects that nobody knows."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/start", self._start),
                web.get("/stop", self._stop),
                web.get("/status_request", self._status),
                web.get("/endpoint", self._endpoint),
            ]
        )
        return app

    async def _start(self, request: web.Request) -> web.Response:
        key = _key(request)
        try:
            await self._bridge.start(key)
        except NotUsable as error:
            log.error("a project cannot be started", **vars(key), error=str(error))
            return web.Response(text=ERROR)
        return web.Response(text=STARTED)

    async def _stop(self, request: web.Request) -> web.Response:
        key = _key(request)
        try:
            await self._bridge.stop(key)
        except (UnknownProject, NotUsable) as error:
            log.error("a project cannot be stopped", **vars(key), error=str(error) or "unknown")
            return web.Response(text=ERROR)
        return web.Response(text=FINISHED)

    async def _status(self, request: web.Request) -> web.Response:
        key = _key(request)
        if key == Key("", ""):
            # The manager asks so whether the module is there.
            return web.Response(text=Status.READY)
        try:
            return web.Response(text=(await self._bridge.view(key)).status)
        except UnknownProject:
            raise web.HTTPNotFound(text=ERROR) from None

    async def _endpoint(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(dataclasses.asdict(await self._bridge.view(_key(request))))
        except UnknownProject:
            raise web.HTTPNotFound(text=ERROR) from None


def _key(request: web.Request) -> Key:
    return Key(_id(request, "user_id"), _id(request, "project_id"))


def _id(request: web.Request, name: str) -> str:
    """Some callers put ids in quotes, empty ones too."""
    return request.query.get(name, "").strip().strip("\"'")
