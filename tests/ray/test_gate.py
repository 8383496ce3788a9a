"""The gate between gRPC and a proxy of Ray Serve, on Ray Serve's own gRPC server."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ray.serve._private.grpc_util import gRPCGenericServer
from ray.serve.grpc_util import RayServegRPCContext

from tests.server.serving import details
from visavis_server.errors import StartupError
from visavis_server.ray import gate, watch
from visavis_server.ray.methods import DETAILS, TIMEOUT
from visavis_server.settings import Settings
from visavis_server.transport.tokens import Tokens, new_token

CLASSIFY = "/visavis.v1.VisionService/Classify"
STREAM = "/visavis.v1.VisionService/CompareStream"
EACH = "/inference.GRPCInferenceService/ModelStreamInfer"
CODES = grpc.StatusCode
STATUS = health_pb2.HealthCheckResponse
PATIENCE_S = 10


class Proxy:
    """Ray's server with a gate; each call is answered as `behave` says.

    seen: the contexts that Ray makes of the calls, to send to replicas.
    """

    def __init__(self) -> None:
        self.seen: list[RayServegRPCContext] = []
        self.behave: Callable[[bytes, Any], Any] = lambda data, context: data
        self.server = gRPCGenericServer(self._factory)

    def _factory(self, service_method: str, streaming_type: Any) -> Any:
        async def unary(data: bytes, context: Any) -> bytes:
            self.seen.append(RayServegRPCContext(context))
            answer = self.behave(data, context)
            return await answer if inspect.isawaitable(answer) else answer

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
    for add in (gate.add_vision, gate.add_inference, gate.add_health):
        add(object(), proxy.server)
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


class Hanging:
    """Answers no request; tells when one waits, and when it was cancelled."""

    def __init__(self) -> None:
        self.waiting, self.cancelled = asyncio.Event(), asyncio.Event()

    async def __call__(self, data: bytes, context: Any) -> bytes:
        self.waiting.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""


async def test_a_call_that_the_client_cancels_is_cancelled_in_the_proxy(proxy: Proxy) -> None:
    hang = Hanging()
    proxy.server.service_handler_factory = lambda service_method, streaming_type: hang
    async with await _channel(proxy) as channel:
        call = channel.unary_unary(CLASSIFY)(b"")
        await hang.waiting.wait()
        call.cancel()
        await asyncio.wait_for(hang.cancelled.wait(), 10)


async def _read(call: Any) -> Any:
    return await asyncio.wait_for(call.read(), PATIENCE_S)


async def test_each_request_of_a_stream_is_a_call_of_its_own_and_answers_keep_their_order(
    proxy: Proxy,
) -> None:
    arrived = asyncio.Event()

    async def answer(data: bytes, context: Any) -> bytes:
        if data == b"1":
            await arrived.wait()
        arrived.set()
        return data * 2

    proxy.behave = answer
    async with await _channel(proxy) as channel:
        metadata = (("x-request-id", "mine"),)
        call = channel.stream_stream(EACH)(timeout=5, metadata=metadata)
        for request in (b"1", b"2"):
            await call.write(request)
        assert [await _read(call), await _read(call)] == [b"11", b"22"]
        await call.write(b"3")
        assert await _read(call) == b"33"
        await call.done_writing()
        assert await _read(call) is grpc.aio.EOF
        assert await call.code() is CODES.OK
        assert dict(await call.trailing_metadata()) == {"x-request-id": "mine"}
    for seen in proxy.seen:
        headers = dict(seen.invocation_metadata())
        assert headers["x-request-id"] == "mine"
        assert 4 < float(headers[TIMEOUT]) < 5.2


async def test_a_stream_has_sixteen_requests_under_way(proxy: Proxy) -> None:
    full, may_end = asyncio.Event(), asyncio.Event()

    async def answer(data: bytes, context: Any) -> bytes:
        if len(proxy.seen) == 16:
            full.set()
        await may_end.wait()
        return data

    proxy.behave = answer
    async with await _channel(proxy) as channel:
        call = channel.stream_stream(EACH)(bytes([number]) for number in range(40))
        await asyncio.wait_for(full.wait(), PATIENCE_S)
        # Later messages on the connection are answered, the stream's wait.
        other = asyncio.create_task(_read(channel.stream_stream(EACH)(iter([b"other"]))))
        while len(proxy.seen) == 16:
            await asyncio.sleep(0.01)
        assert len(proxy.seen) == 17
        may_end.set()
        assert [each async for each in call] == [bytes([number]) for number in range(40)]
        assert await other == b"other"


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "of Ray"])
async def test_an_error_ends_a_stream_once_earlier_requests_are_answered(
    proxy: Proxy, *, ours: bool
) -> None:
    failed = asyncio.Event()

    async def answer(data: bytes, context: Any) -> bytes:
        if data == b"good":
            await failed.wait()
            return data
        failed.set()
        context.set_code(CODES.INVALID_ARGUMENT if ours else CODES.INTERNAL)
        context.set_details("no message" if ours else "ActorDiedError")
        if ours:
            context.set_trailing_metadata([(DETAILS, b"details")])
        return b""

    proxy.behave = answer
    async with await _channel(proxy) as channel:
        call = channel.stream_stream(EACH)()
        for request in (b"good", b"bad"):
            await call.write(request)
        assert await _read(call) == b"good"
        error = await _error(_read(call))
    assert error.code() is (CODES.INVALID_ARGUMENT if ours else CODES.UNAVAILABLE)
    assert ("no message" in str(error.details())) is ours
    assert "Actor" not in str(error.details())


async def test_a_request_over_the_limit_ends_a_stream_and_never_reaches_a_replica(
    proxy: Proxy, settings: Callable[..., None]
) -> None:
    settings(max_message_bytes=1000)
    async with await _channel(proxy) as channel:
        call = channel.stream_stream(EACH)()
        for size in (1000, 1001):
            await call.write(bytes(size))
        assert await _read(call) == bytes(1000)
        error = await _error(_read(call))
    assert error.code() is CODES.INVALID_ARGUMENT
    assert "1001" in str(error.details())
    assert len(proxy.seen) == 1


@pytest.mark.parametrize("path", [CLASSIFY, EACH])
async def test_a_call_that_falls_silent_ends(
    proxy: Proxy, settings: Callable[..., None], path: str
) -> None:
    settings(message_timeout_s=0.1)
    async with await _channel(proxy) as channel:
        call = channel.stream_stream(path)()
        error = await _error(_read(call))
    assert error.code() is CODES.DEADLINE_EXCEEDED
    assert error.details() == "the request did not arrive within 0.1 s"
    assert not proxy.seen


async def test_strangers_are_refused_streams_too(
    proxy: Proxy, settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_is_local", lambda peer: False)
    settings()
    async with await _channel(proxy) as channel:
        for path in (EACH, "/grpc.health.v1.Health/Watch"):
            call = channel.stream_stream(path)()
            await call.write(b"")
            assert (await _error(_read(call))).code() is CODES.PERMISSION_DENIED
    assert not proxy.seen


async def test_a_stream_that_the_client_leaves_is_cancelled_in_the_proxy(proxy: Proxy) -> None:
    hang = Hanging()
    proxy.behave = hang
    async with await _channel(proxy) as channel:
        call = channel.stream_stream(EACH)()
        await call.write(b"")
        await hang.waiting.wait()
        call.cancel()
        await asyncio.wait_for(hang.cancelled.wait(), PATIENCE_S)


class Listed:
    """Statuses that the ingress lists, or the code that it fails with."""

    def __init__(self, proxy: Proxy) -> None:
        self.statuses = {"": STATUS.SERVING, "visavis.v1.VisionService": STATUS.SERVING}
        self.code: grpc.StatusCode | None = None
        self.asked = asyncio.Event()
        proxy.behave = self._answer

    def _answer(self, data: bytes, context: Any) -> bytes:
        self.asked.set()
        if self.code is not None:
            context.set_code(self.code)
            return b""
        return health_pb2.HealthListResponse(
            statuses={name: STATUS(status=each) for name, each in self.statuses.items()}
        ).SerializeToString()

    async def again(self) -> None:
        """Wait until it has been asked once more."""
        self.asked.clear()
        await asyncio.wait_for(self.asked.wait(), PATIENCE_S)


@pytest.fixture
def listed(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Listed:
    monkeypatch.setattr(watch, "_INTERVAL_S", 0.01)
    return Listed(proxy)


def _watch(channel: grpc.aio.Channel, service: str) -> Any:
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=service))


async def test_watchers_get_the_status_at_once_and_each_change(
    proxy: Proxy, listed: Listed
) -> None:
    async with await _channel(proxy) as channel:
        whole, model = _watch(channel, ""), _watch(channel, "resnet50")
        assert (await _read(whole)).status == STATUS.SERVING
        assert (await _read(model)).status == STATUS.SERVICE_UNKNOWN
        listed.statuses |= {"resnet50": STATUS.SERVING, "": STATUS.NOT_SERVING}
        assert (await _read(model)).status == STATUS.SERVING
        assert (await _read(whole)).status == STATUS.NOT_SERVING
        # Unchanged, it says nothing: the next status is the next change.
        await listed.again()
        await listed.again()
        listed.statuses[""] = STATUS.SERVING
        assert (await _read(whole)).status == STATUS.SERVING


@pytest.mark.parametrize("code", [CODES.INTERNAL, CODES.NOT_FOUND, CODES.DEADLINE_EXCEEDED])
async def test_watchers_learn_that_the_ingress_does_not_answer(
    proxy: Proxy, listed: Listed, code: grpc.StatusCode
) -> None:
    listed.statuses["resnet50"] = STATUS.SERVING
    async with await _channel(proxy) as channel:
        watches = [_watch(channel, name) for name in ("", "resnet50")]
        for each in watches:
            assert (await _read(each)).status == STATUS.SERVING
        listed.code = code
        for each in watches:
            assert (await _read(each)).status == STATUS.NOT_SERVING
        listed.code = None
        for each in watches:
            assert (await _read(each)).status == STATUS.SERVING


async def test_an_ingress_that_hangs_is_not_serving(
    proxy: Proxy, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_PATIENCE_S", 0.05)
    async with await _channel(proxy) as channel:
        call = _watch(channel, "")
        assert (await _read(call)).status == STATUS.SERVING
        proxy.behave = lambda data, context: asyncio.sleep(60)
        assert (await _read(call)).status == STATUS.NOT_SERVING


async def test_a_busy_ingress_changes_no_status(proxy: Proxy, listed: Listed) -> None:
    async with await _channel(proxy) as channel:
        call = _watch(channel, "")
        assert (await _read(call)).status == STATUS.SERVING
        listed.code = CODES.RESOURCE_EXHAUSTED
        await listed.again()
        await listed.again()
        listed.code, listed.statuses[""] = None, STATUS.UNKNOWN
        assert (await _read(call)).status == STATUS.UNKNOWN


async def test_many_watchers_ask_the_ingress_once(
    proxy: Proxy, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_INTERVAL_S", 60)
    asking, may_answer = asyncio.Event(), asyncio.Event()

    async def answer(data: bytes, context: Any) -> bytes:
        asking.set()
        await may_answer.wait()
        return listed._answer(data, context)

    proxy.behave = answer
    async with await _channel(proxy) as channel:
        first = _watch(channel, "")
        await asyncio.wait_for(asking.wait(), PATIENCE_S)
        watches = [_watch(channel, "") for _ in range(20)]
        # The watcher for whom it was asked leaves; once another call has ended, that has arrived.
        first.cancel()
        await _error(channel.unary_unary("/visavis.v1.VisionService/Nothing")(b""))
        may_answer.set()
        for each in watches:
            assert (await _read(each)).status == STATUS.SERVING
    assert len(proxy.seen) == 1


async def test_a_watch_of_nothing_readable_is_an_error_of_the_client(
    proxy: Proxy, listed: Listed
) -> None:
    async with await _channel(proxy) as channel:
        call = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\xff")
        assert (await _error(_read(call))).code() is CODES.INVALID_ARGUMENT


async def test_a_proxy_that_routes_calls_in_another_way_does_not_start() -> None:
    class Elsewhere(gRPCGenericServer):
        """Replaces the functions of another attribute."""

        def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None:
            generic_rpc_handlers[0]._handlers_by_method.clear()

    for server in (grpc.aio.server(), Elsewhere(lambda **_: None)):
        with pytest.raises(StartupError, match=r"^Ray \d+\.\d+\.\d+ .* install ray 2\.60$") as why:
            gate.add_vision(object(), server)
        assert version("ray") in str(why.value)
        await server.stop(0)
