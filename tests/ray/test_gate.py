"""The gate between gRPC and a proxy of Ray Serve, on Ray Serve's own gRPC server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from ray.serve._private.grpc_util import gRPCGenericServer
from ray.serve.grpc_util import RayServegRPCContext

from tests.server.serving import details
from visavis_server.ray import gate
from visavis_server.ray.methods import TIMEOUT
from visavis_server.settings import Settings
from visavis_server.transport.tokens import Tokens, new_token

CLASSIFY = "/visavis.v1.VisionService/Classify"
STREAM = "/visavis.v1.VisionService/CompareStream"
CODES = grpc.StatusCode


class Proxy:
    """Ray's server with a gate; each call is answered as `behave` says.

    seen: the contexts that Ray makes of the calls, to send to replicas.
    """

    def __init__(self) -> None:
        self.seen: list[RayServegRPCContext] = []
        self.behave: Callable[[bytes, Any], bytes] = lambda data, context: data
        self.server = gRPCGenericServer(self._factory)

    def _factory(self, service_method: str, streaming_type: Any) -> Any:
        async def unary(data: bytes, context: Any) -> bytes:
            self.seen.append(RayServegRPCContext(context))
            return self.behave(data, context)

        async def stream(data: bytes, context: Any) -> AsyncIterator[bytes]:
            self.seen.append(RayServegRPCContext(context))
            yield b"first"
            yield self.behave(data, context)

        return stream if streaming_type.name.endswith("_STREAM") else unary

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the last call, as a replica receives them."""
        return dict(self.seen[-1].invocation_metadata())


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    yield proxy
    await proxy.server.stop(0)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets the settings of the node."""

    def set_them(tokens: Path | None = None, **fields: Any) -> None:
        monkeypatch.setattr(gate, "_settings", lambda: Settings(**fields))
        monkeypatch.setattr(gate, "_tokens", lambda: Tokens(tokens) if tokens else None)

    return set_them


async def _channel(proxy: Proxy) -> grpc.aio.Channel:
    gate.add_vision(object(), proxy.server)
    port = proxy.server.add_insecure_port("127.0.0.1:0")
    await proxy.server.start()
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}")


async def _error(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_replica_learns_the_deadline_of_the_call(proxy: Proxy) -> None:
    async with await _channel(proxy) as channel:
        classify = channel.unary_unary(CLASSIFY)
        assert await classify(b"picture", timeout=5) == b"picture"
        assert 4 < float(proxy.headers[TIMEOUT]) < 5.2  # gRPC rounds it up
        await classify(b"picture")
        assert TIMEOUT not in proxy.headers
        # A client can't pretend to have another one.
        await classify(b"picture", metadata=((TIMEOUT, "1000"),), timeout=5)
        assert 4 < float(proxy.headers[TIMEOUT]) < 5.2  # gRPC rounds it up


async def test_each_call_has_a_request_id_that_is_safe_to_log(proxy: Proxy) -> None:
    async with await _channel(proxy) as channel:
        classify = channel.unary_unary(CLASSIFY)
        for sent, kept in (("mine", True), ("not safe", False)):
            call = classify(b"", metadata=(("x-request-id", sent),))
            trailing = dict(await call.trailing_metadata())
            await call
            assert set(trailing) == {"x-request-id"}
            assert (trailing["x-request-id"] == sent) is kept
            assert proxy.headers["x-request-id"] == trailing["x-request-id"]


@pytest.mark.parametrize(
    ("rays", "ours"),
    [
        (CODES.INTERNAL, CODES.UNAVAILABLE),  # the ingress's replica died
        (CODES.UNAVAILABLE, CODES.UNAVAILABLE),
        (CODES.NOT_FOUND, CODES.UNAVAILABLE),  # no application yet
        (CODES.RESOURCE_EXHAUSTED, CODES.RESOURCE_EXHAUSTED),
        (CODES.DEADLINE_EXCEEDED, CODES.DEADLINE_EXCEEDED),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", [CLASSIFY, STREAM])
async def test_rays_errors_are_told_in_our_words(
    proxy: Proxy, path: str, rays: CODES, ours: CODES
) -> None:
    def fail(data: bytes, context: Any) -> bytes:
        context.set_trailing_metadata([("request_id", "of Ray")])
        context.set_code(rays)
        context.set_details("ray::ServeReplica: ActorDiedError at 10.0.0.7, /opt/app.py")
        return b"not sent"

    proxy.behave = fail
    async with await _channel(proxy) as channel:
        if path == CLASSIFY:
            error = await _error(channel.unary_unary(path)(b""))
        else:
            call = channel.unary_stream(path)(b"")
            assert await call.read() == b"first"
            error = await _error(call.read())
    assert error.code() is ours
    assert "ray" not in str(error.details()).lower()
    assert {key for key, _ in error.trailing_metadata() or ()} == {
        "x-request-id",
        "grpc-status-details-bin",
    }
    assert details(error, error_details_pb2.RequestInfo)
    retry = details(error, error_details_pb2.RetryInfo)
    assert bool(retry) is (ours is CODES.RESOURCE_EXHAUSTED)


async def test_strangers_are_refused_unless_the_node_allows_them(
    proxy: Proxy, settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gate._is_local("ipv4:127.0.0.1:5000")
    assert gate._is_local("ipv6:%5B::1%5D:5000")
    assert gate._is_local("ipv6:%5B::ffff:127.0.0.1%5D:5000")
    assert gate._is_local("unix:")
    assert not gate._is_local("ipv4:192.0.2.7:5000")
    assert not gate._is_local("ipv6:%5B2001:db8::7%5D:5000")
    monkeypatch.setattr(gate, "_is_local", lambda peer: False)
    settings()
    async with await _channel(proxy) as channel:
        error = await _error(channel.unary_unary(CLASSIFY)(b""))
    assert error.code() is CODES.PERMISSION_DENIED
    assert "VISAVIS_INSECURE" in str(error.details())
    assert not proxy.seen


async def test_strangers_are_admitted_where_the_node_allows_them(
    proxy: Proxy, settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_is_local", lambda peer: False)
    settings(insecure=True)
    async with await _channel(proxy) as channel:
        assert await channel.unary_unary(CLASSIFY)(b"picture") == b"picture"


async def test_a_node_with_tokens_wants_one_of_each_call(
    proxy: Proxy, settings: Callable[..., None], tmp_path: Path
) -> None:
    token, file = new_token("tests"), tmp_path / "tokens"
    file.write_text(f"{token.line}\n")
    settings(tokens=file)
    async with await _channel(proxy) as channel:
        classify = channel.unary_unary(CLASSIFY)
        metadata = (("authorization", f"Bearer {token.token}"),)
        assert await classify(b"picture", metadata=metadata) == b"picture"
        assert "authorization" not in proxy.headers
        assert (await _error(classify(b""))).code() is CODES.UNAUTHENTICATED
    assert len(proxy.seen) == 1


async def test_a_message_over_the_limit_never_reaches_a_replica(
    proxy: Proxy, settings: Callable[..., None]
) -> None:
    settings(max_message_bytes=1000)
    async with await _channel(proxy) as channel:
        classify = channel.unary_unary(CLASSIFY)
        assert await classify(bytes(1000)) == bytes(1000)
        error = await _error(classify(bytes(1001)))
    assert error.code() is CODES.INVALID_ARGUMENT
    assert "1001" in str(error.details())
    assert len(proxy.seen) == 1


async def test_a_call_that_the_client_cancels_is_cancelled_in_the_proxy(proxy: Proxy) -> None:
    waiting, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(data: bytes, context: Any) -> bytes:
        waiting.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    proxy.server.service_handler_factory = lambda service_method, streaming_type: hang
    async with await _channel(proxy) as channel:
        call = channel.unary_unary(CLASSIFY)(b"")
        await waiting.wait()
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), 10)
