"""The Open Inference Protocol over HTTP: its paths, answered by the service that gRPC calls."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from visavis_server.api.context import Context
from visavis_server.api.inference import grpc_service_pb2 as pb
from visavis_server.api.inference.rest import request as requests
from visavis_server.api.inference.rest import response as responses
from visavis_server.api.inference.service import InferenceService
from visavis_server.errors import InvalidRequest, Unimplemented
from visavis_server.settings import MessageLimits
from visavis_server.transport import json_message
from visavis_server.transport.calls import Calls
from visavis_server.transport.http.guards import JSON_COPIES
from visavis_server.transport.http.rejections import inference_error, values_of
from visavis_server.transport.http.unary import respond

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""The header with the size of the JSON, behind which binary tensors follow."""

_RPCS: Final = "/inference.GRPCInferenceService/"
# A tensor is also copied into its batch, and from base64 or numbers into its elements.
_BINARY_COPIES: Final = 3


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request: the model and version in its path, or empty; its context, headers and body."""

    name: str
    version: str
    context: Context
    headers: list[tuple[bytes, bytes]]
    body: bytes


_Answer: TypeAlias = "Callable[[InferenceDoor, _Asked], Awaitable[Response]]"


@dataclass(frozen=True, slots=True)
class _Route:
    """One path of the protocol, and the RPC that answers it; one_of: the HTTP methods."""

    one_of: tuple[str, ...]
    path: re.Pattern[str]
    rpc: str
    answer: _Answer


class InferenceDoor:
    """The Open Inference Protocol over HTTP, as an ASGI application.

    limits: of JSON. most_bytes: of a response.
    """

    def __init__(
        self, service: InferenceService, calls: Calls, limits: MessageLimits, most_bytes: int
    ) -> None:
        self._service = service
        self._calls = calls
        self._limits = limits
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request whose body is one ASGI message; ASGI calls this."""
        path = scope["path"]
        routes = [(r, match) for r in _ROUTES if (match := r.path.fullmatch(path))]
        if not routes:
            response = _failed(404, "no such path; see docs/http.md for those of /v2")
            await response(scope, receive, send)
            return
        found = [(r, match) for r, match in routes if scope["method"] in r.one_of]
        if not found:
            allowed = ", ".join(sorted({each for r, _ in routes for each in r.one_of}))
            response = _failed(405, f"this path takes {allowed}, not {scope['method'][:16]}")
            response.headers["allow"] = allowed
            await response(scope, receive, send)
            return
        route, match = found[0]
        body = (await receive()).get("body", b"") if scope["method"] == "POST" else b""
        named = match.groupdict()

        async def answer(context: Context) -> Response:
            nonlocal body
            asked = _Asked(
                named.get("name") or "", named.get("version") or "", context, scope["headers"], body
            )
            body = b""  # not kept until the call ends
            return await route.answer(self, asked)

        rpc = _RPCS + route.rpc
        await respond(self._calls, rpc, inference_error, answer, scope, receive, send)

    async def live(self, asked: _Asked) -> Response:
        """Return whether the server is live."""
        answered = await self._service.ServerLive(pb.ServerLiveRequest(), asked.context)
        return JSONResponse({"live": answered.live}, 200 if answered.live else 503)

    async def ready(self, asked: _Asked) -> Response:
        """Return whether a model is served, and the server isn't stopping."""
        answered = await self._service.ServerReady(pb.ServerReadyRequest(), asked.context)
        ready = answered.ready and not self._calls.stopping
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def metadata(self, asked: _Asked) -> Response:
        """Return the server's metadata."""
        request = pb.ServerMetadataRequest()
        return _json(await self._service.ServerMetadata(request, asked.context))

    async def model_ready(self, asked: _Asked) -> Response:
        """Return that a model is ready, or the error that says why it isn't."""
        await self._metadata(asked)
        return JSONResponse({"name": asked.name, "ready": True})

    async def model_metadata(self, asked: _Asked) -> Response:
        """Return a model's metadata."""
        return _json(await self._metadata(asked))

    async def config(self, asked: _Asked) -> Response:
        """Return a model's configuration."""
        request = pb.ModelConfigRequest(name=asked.name, version=asked.version)
        return _json((await self._service.ModelConfig(request, asked.context)).config)

    async def statistics(self, asked: _Asked) -> Response:
        """Return the statistics of one model, or of all."""
        request = pb.ModelStatisticsRequest(name=asked.name, version=asked.version)
        return _json(await self._service.ModelStatistics(request, asked.context))

    async def index(self, asked: _Asked) -> Response:
        """Return the index of the repository."""
        parsed = await self._loaded(asked.body)
        if not isinstance(ready := parsed.get("ready", False), bool):
            raise InvalidRequest("ready", "ready must be true or false")
        request = pb.RepositoryIndexRequest(ready=ready)
        answered = await self._service.RepositoryIndex(request, asked.context)
        return JSONResponse([responses.plain(model) for model in answered.models])

    async def load(self, asked: _Asked) -> Response:
        """Load a model."""
        parsed = await self._loaded(asked.body)
        request = pb.RepositoryModelLoadRequest(model_name=asked.name)
        if parsed.get("parameters"):
            request.parameters["given"].bool_param = True  # rejected by the service
        await self._service.RepositoryModelLoad(request, asked.context)
        return JSONResponse({})

    async def unload(self, asked: _Asked) -> Response:
        """Stop serving a model."""
        request = pb.RepositoryModelUnloadRequest(model_name=asked.name)
        await self._service.RepositoryModelUnload(request, asked.context)
        return JSONResponse({})

    async def infer(self, asked: _Asked) -> Response:
        """Return a model's outputs."""
        _require_uncompressed(asked.headers)
        header_bytes = _header_bytes(asked.headers)
        name, version = asked.name, asked.version
        if header_bytes == 0:
            metadata = await self._metadata(asked)
            read = partial(requests.read_bare, asked.body, metadata, name, version)
        else:
            read = partial(requests.read, asked.body, header_bytes, name, version, self._limits)
        wanted = await asyncio.to_thread(read)
        del read
        write = partial(responses.write, asked=wanted, most_bytes=self._most_bytes)
        written = await self._service.infer(wanted.request, asked.context, write)
        if written.header_bytes is None:
            return Response(written.body, media_type="application/json")
        headers = {HEADER_LENGTH: str(written.header_bytes)}
        return Response(written.body, headers=headers, media_type="application/octet-stream")

    async def _metadata(self, asked: _Asked) -> pb.ModelMetadataResponse:
        request = pb.ModelMetadataRequest(name=asked.name, version=asked.version)
        return await self._service.ModelMetadata(request, asked.context)

    async def _loaded(self, body: bytes) -> dict[str, Any]:
        """Return the object in a body, which may be empty."""
        if not body:
            return {}
        try:
            parsed, _ = await asyncio.to_thread(json_message.load, body, self._limits)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest("request", f"the request is not JSON: {error}") from None
        return parsed


def weigh(scope: Scope, size: int) -> int:
    """Return the bytes that a request takes during its call, given the size of its body."""
    in_json = "".join(values_of(scope["headers"], HEADER_LENGTH.lower()))
    json_bytes = min(size, int(in_json)) if _is_size(in_json) else size
    return JSON_COPIES * json_bytes + _BINARY_COPIES * (size - json_bytes)


def _header_bytes(headers: list[tuple[bytes, bytes]]) -> int | None:
    """Return the size of the JSON; None: the body is nothing else. Raises InvalidRequest."""
    if not (given := values_of(headers, HEADER_LENGTH.lower())):
        return None
    if len(given) > 1 or not _is_size(given[0]):
        raise InvalidRequest(
            "request", f"{HEADER_LENGTH} is {', '.join(given)[:64]}; it must be one size in bytes"
        )
    return int(given[0])


def _is_size(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,12}", text) is not None


def _require_uncompressed(headers: list[tuple[bytes, bytes]]) -> None:
    """Raise Unimplemented for a compressed body: a small one could become a large one."""
    for encoding in values_of(headers, "content-encoding"):
        if encoding.strip().lower() != "identity":
            raise Unimplemented(
                f"the body is compressed ({encoding[:16]}), which is not supported; send it as it "
                "is: pictures are compressed already"
            )


def _unsupported(path: str, rpc: str) -> _Route:
    async def refuse(door: InferenceDoor, asked: _Asked) -> Response:
        return _json(await getattr(door._service, rpc)(None, asked.context))

    return _route("GET HEAD POST", path, rpc, refuse)


def _json(message: Any) -> Response:
    return JSONResponse(responses.plain(message))


def _failed(code: int, why: str) -> Response:
    return JSONResponse({"error": why}, code)


def _route(methods: str, path: str, rpc: str, answer: _Answer) -> _Route:
    return _Route(tuple(methods.split()), re.compile(f"/v2{path}"), rpc, answer)


_NAME: Final = "/models/(?P<name>[^/]+)"
_MODEL: Final = f"{_NAME}(?:/versions/(?P<version>[^/]+))?"
_READ: Final = "GET HEAD"
_ROUTES: Final = [
    _route(_READ, "/?", "ServerMetadata", InferenceDoor.metadata),
    _route(_READ, "/health/live", "ServerLive", InferenceDoor.live),
    _route(_READ, "/health/ready", "ServerReady", InferenceDoor.ready),
    _route(_READ, "/models/stats", "ModelStatistics", InferenceDoor.statistics),
    _route(_READ, _MODEL, "ModelMetadata", InferenceDoor.model_metadata),
    _route(_READ, f"{_MODEL}/ready", "ModelReady", InferenceDoor.model_ready),
    _route(_READ, f"{_MODEL}/config", "ModelConfig", InferenceDoor.config),
    _route(_READ, f"{_MODEL}/stats", "ModelStatistics", InferenceDoor.statistics),
    _route("POST", f"{_MODEL}/infer", "ModelInfer", InferenceDoor.infer),
    _route("POST", "/repository/index", "RepositoryIndex", InferenceDoor.index),
    _route("POST", f"/repository{_NAME}/load", "RepositoryModelLoad", InferenceDoor.load),
    _route("POST", f"/repository{_NAME}/unload", "RepositoryModelUnload", InferenceDoor.unload),
    _unsupported(f"(?:{_NAME})?/trace/setting", "TraceSetting"),
    _unsupported("/logging", "LogSettings"),
    *(
        _unsupported(
            f"/{kind.lower()}sharedmemory(?:/region/[^/]+)?/{what.lower()}",
            f"{kind}SharedMemory{what}",
        )
        for kind in ("System", "Cuda")
        for what in ("Status", "Register", "Unregister")
    ),
]
