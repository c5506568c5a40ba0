"""Every call passes here: who calls, whether it may, and what becomes of an error."""

import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import structlog

from controller.access import hash_secret
from controller.errors import DomainError, PermissionDenied, Unauthenticated
from controller.rpc.errors import INTERNAL_TEXT, details_limit, status_code, status_text, trailing_metadata
from controller.rpc.permissions import PERMISSIONS, Permission
from controller.store import Store
from controller.store.access import Principal, Role
from longshore.errors import Reason

log = structlog.get_logger()
caller: contextvars.ContextVar[Principal] = contextvars.ContextVar("caller")
NOBODY = Principal("", Role.NOBODY)
# grpc's own types for handlers and contexts are generic in the messages, which do not matter here.
Handler = Any
Context = Any


class Gatekeeper(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Authenticates, authorizes by the table of permissions, and turns errors into status codes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(details)
        if handler is None:
            return handler
        permission = PERMISSIONS.get(details.method)
        bound = log.bind(method=details.method)
        if handler.response_streaming:
            return _replace(handler, self._stream(handler, permission, bound))
        return _replace(handler, self._unary(handler, permission, bound))

    def _unary(self, handler: Handler, permission: Permission | None, bound: Any) -> Any:
        behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def call(request: Any, context: Context) -> Any:
            try:
                await self._admit(context, permission)
                return await behaviour(request, context)
            except Exception as error:  # noqa: BLE001 - `_abort` re-raises, or logs and answers INTERNAL
                return await _abort(context, error, bound)

        return call

    def _stream(self, handler: Handler, permission: Permission | None, bound: Any) -> Any:
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                await self._admit(context, permission)
                async for response in behaviour(request, context):
                    yield response
            except Exception as error:  # noqa: BLE001 - `_abort` re-raises, or logs and answers INTERNAL
                await _abort(context, error, bound)

        return call

    async def _admit(self, context: Context, permission: Permission | None) -> None:
        principal = await self._principal(context)
        check(principal, permission)
        caller.set(principal)

    async def _principal(self, context: Context) -> Principal:
        names = context.auth_context().get("x509_common_name")
        if names:
            return Principal(bytes(names[0]).decode(), Role.DEVICE)
        metadata = dict(context.invocation_metadata() or ())
        scheme, _, token = str(metadata.get("authorization", "")).partition(" ")
        if scheme.lower() != "bearer" or not token:
            return NOBODY
        hashed = hash_secret(token.strip())
        found = await self._store.transact(lambda tx: tx.access.principal(hashed))
        if found is None:
            raise Unauthenticated(Reason.BAD_CREDENTIALS, "the bearer token is not known; ask an administrator for one")
        return found


def check(principal: Principal, permission: Permission | None) -> None:
    """Raises Unauthenticated or PermissionDenied where this caller may not."""
    if permission is Permission.ANYONE:
        return
    if principal.role is Role.NOBODY:
        wanted = (
            "a client certificate" if permission is Permission.DEVICE else "the metadata authorization: Bearer TOKEN"
        )
        raise Unauthenticated(Reason.NO_CREDENTIALS, f"this call needs {wanted}")
    allowed = {
        Permission.USER: (Role.ADMIN, Role.MEMBER),
        Permission.ADMIN: (Role.ADMIN,),
        Permission.DEVICE: (Role.DEVICE,),
    }
    if permission is None or principal.role not in allowed[permission]:
        raise PermissionDenied(Reason.NOT_ALLOWED, f"{principal.role.value} {principal.name} may not make this call")


async def _abort(context: Context, error: Exception, bound: Any) -> Any:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, DomainError):
        limit = details_limit(context.invocation_metadata() or ())
        await context.abort(status_code(error), status_text(error), trailing_metadata(error, limit))
    bound.error("call failed", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, INTERNAL_TEXT)


def _replace(handler: Handler, behaviour: Any) -> Handler:
    makers = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make = makers[handler.request_streaming, handler.response_streaming]
    return make(behaviour, handler.request_deserializer, handler.response_serializer)
