"""How services are declared: a table of typed methods, and one place where errors become status codes.

Unary methods are plain functions without await, so each is one atomic step of the engine. A method that is in no table
is answered UNIMPLEMENTED with its name, which the SDK does not retry.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import status_pb2

from mageflow.engine.contracts import v1_workflows_pb2
from mageflow.engine.errors import IdempotencyCollisionError, RequestError

_log = logging.getLogger("mageflow.engine.rpc")

RequestT = TypeVar("RequestT", bound=Message)
AnyRequestT = TypeVar("AnyRequestT")
AnyResponseT = TypeVar("AnyResponseT")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def unary(request: type[RequestT], method: Callable[[RequestT], Message]) -> Handler:
    """Declare a unary method."""

    async def handle(message: RequestT, context: Context) -> Message:
        try:
            return method(message)
        except RequestError as error:
            await refuse(context, error)
        except Exception:
            _log.exception("%s failed", request.DESCRIPTOR.name)
            raise

    return grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=request.FromString, response_serializer=_serialize
    )


def server_stream(request: type[RequestT], method: Callable[[RequestT], AsyncIterator[Message]]) -> Handler:
    """Declare a server stream."""

    async def handle(message: RequestT, context: Context) -> AsyncIterator[Message]:
        try:
            async for response in method(message):
                yield response
        except RequestError as error:
            await refuse(context, error)

    return grpc.unary_stream_rpc_method_handler(
        handle, request_deserializer=request.FromString, response_serializer=_serialize
    )


def bidirectional(
    request: type[RequestT], method: Callable[[AsyncIterator[RequestT]], AsyncIterator[Message]]
) -> Handler:
    """Declare a bidirectional stream."""

    async def handle(messages: AsyncIterator[RequestT], context: Context) -> AsyncIterator[Message]:
        try:
            async for response in method(messages):
                yield response
        except RequestError as error:
            await refuse(context, error)

    return grpc.stream_stream_rpc_method_handler(
        handle, request_deserializer=request.FromString, response_serializer=_serialize
    )


def raw_unary(method: Callable[[bytes], bytes]) -> Handler:
    """Declare a unary method whose messages are not decoded."""

    async def handle(message: bytes, _context: Context) -> bytes:
        return method(message)

    return grpc.unary_unary_rpc_method_handler(handle)


def service(name: str, methods: Mapping[str, Handler]) -> grpc.GenericRpcHandler:
    """Return a service for ``server.add_generic_rpc_handlers``."""
    return grpc.method_handlers_generic_handler(name, dict(methods))


async def refuse(context: Context, error: RequestError) -> NoReturn:
    """End the call with the error's status. ``abort`` raises, so no caller may catch every exception."""
    metadata: tuple[tuple[str, bytes], ...] = ()
    if isinstance(error, IdempotencyCollisionError):
        metadata = (("grpc-status-details-bin", _collision_details(error)),)
    await context.abort(grpc.StatusCode[error.grpc_status], str(error), trailing_metadata=metadata)
    raise AssertionError("abort returned")


def _collision_details(error: IdempotencyCollisionError) -> bytes:
    collisions = [
        v1_workflows_pb2.IdempotencyCollisionError(existing_run_external_id=each.existing_run_id)
        for each in error.collisions
    ]
    detail: Message = collisions[0]
    if error.bulk:
        detail = v1_workflows_pb2.BulkTriggerIdempotencyCollisionError(
            successful_workflow_run_external_ids=error.started, collisions=collisions
        )
    packed = AnyMessage()
    packed.Pack(detail)
    code = grpc.StatusCode.ALREADY_EXISTS.value[0]
    return status_pb2.Status(code=code, message=str(error), details=[packed]).SerializeToString()


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _always(code: grpc.StatusCode, text: str) -> Handler:
    """Return a handler that ends a call of any kind at once, before the client's first message."""

    async def end(_requests: object, context: Context) -> NoReturn:
        await context.abort(code, text)
        raise AssertionError("abort returned")

    return grpc.stream_stream_rpc_method_handler(end)


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Rejects calls without the engine's token, and calls of unknown methods. Without a token it rejects every call."""

    def __init__(self) -> None:
        self._expected: str | None = None
        self._reject = _always(grpc.StatusCode.UNAUTHENTICATED, "wrong or missing token for this engine")

    def accept(self, token: str) -> None:
        """Accept calls with this token. The token names the server's port, so it is made after the server."""
        self._expected = f"bearer {token}"

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[AnyRequestT, AnyResponseT] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[AnyRequestT, AnyResponseT] | None:
        """Return the handler of the call, or one that answers UNAUTHENTICATED or UNIMPLEMENTED."""
        metadata = handler_call_details.invocation_metadata or ()
        given = next((value for key, value in metadata if key == "authorization"), "")
        scheme, _, token = str(given).partition(" ")
        if f"{scheme.lower()} {token}" != self._expected:
            return self._reject
        handler = await continuation(handler_call_details)
        if handler is None:
            name = handler_call_details.method
            _log.warning("%s was called, which the local engine does not have", name)
            return _always(grpc.StatusCode.UNIMPLEMENTED, f"the local engine has no method {name}")
        return handler
