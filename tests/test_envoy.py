"""Two servers behind Envoy: one of them killed, callers that stall, all protocols on one port."""

import json
import signal
import ssl
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import grpc
import pytest
from google.protobuf import json_format
from visavis import TLS, Client
from visavis.v1 import vision_pb2
from visavis.v1.vision_pb2_grpc import VisionServiceStub

from tests.faults.attacks import METHOD, HungUp, RawConnection
from tests.faults.process import PATIENCE_S, until
from tests.proxies import (
    Proxy,
    Server,
    addresses_of,
    channel_to,
    require,
    started,
    two_servers,
)
from tests.server import graphs
from tests.server.pictures import RED, plain

CONFIGURATIONS = ("envoy.yaml", "envoy-edge.yaml")
REQUEST = vision_pb2.ClassifyRequest(model="colors", image=vision_pb2.Image(encoded=plain(RED)))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    require("envoy")
    folder = tmp_path_factory.mktemp("servers")
    colors, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    graphs.put(folder / "models", "colors", 1, colors)
    with two_servers(folder / "models", folder) as servers:
        yield servers


@pytest.fixture(scope="module")
def proxies(
    servers: list[Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Proxy]]:
    addresses = addresses_of(servers)
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(started(name, addresses, tmp_path_factory.mktemp("envoy")))
            for name in CONFIGURATIONS
        }


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_killed_server_loses_no_call_of_clients_that_never_retry(
    configuration: str, servers: list[Server], proxies: dict[str, Proxy]
) -> None:
    stop, counted = threading.Event(), Counter[str]()

    def call() -> None:
        with channel_to(proxies[configuration]) as channel:
            stub = VisionServiceStub(channel)  # type: ignore[no-untyped-call]
            while not stop.is_set():
                try:
                    stub.Classify(REQUEST, timeout=PATIENCE_S)
                    counted["answered"] += 1
                except grpc.RpcError as error:
                    counted[f"{error.code()}: {error.details()}"] += 1

    def answered(more: int) -> None:
        target = counted["answered"] + more
        until(lambda: counted["answered"] >= target, str(counted))

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    try:
        for server in servers:
            answered(100)
            server.process.signal(signal.SIGKILL)
            assert server.process.wait() == -signal.SIGKILL
            answered(200)
            server.process.start()
            server.process.wait_until_ready()
            # The next one may end once Envoy has noticed that this one serves.
            until(lambda: answers(server), "Envoy sends the server no calls")  # noqa: B023
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert set(counted) == {"answered"}, counted


def test_one_port_serves_grpc_grpc_web_json_and_the_page_over_tls(
    proxies: dict[str, Proxy],
) -> None:
    edge = proxies["envoy-edge.yaml"]
    assert edge.authority is not None
    with Client(edge.address, tls=TLS(edge.authority)) as client:
        result = client.classify(plain(RED), model="colors")
    assert result.classifications[0].label == "red"
    message = REQUEST.SerializeToString()
    web = _post(
        edge, METHOD, "application/grpc-web+proto", b"\0" + len(message).to_bytes(4) + message
    )
    size = int.from_bytes(web[1:5])
    answer = vision_pb2.ClassifyResponse.FromString(web[5 : 5 + size])
    assert (web[0], answer.classifications[0].label) == (0, "red")
    assert web[5 + size] == 0x80 and b"grpc-status:0" in web[5 + size :]
    in_json = json_format.MessageToJson(REQUEST).encode()
    called = json.loads(_post(edge, METHOD, "application/json", in_json))
    assert called["classifications"][0]["label"] == "red"
    assert b"<title>" in _open(edge, urllib.request.Request(_url(edge, "/")))


def test_callers_that_stall_take_no_turns_from_a_neighbour(proxies: dict[str, Proxy]) -> None:
    edge = proxies["envoy-edge.yaml"]
    assert edge.authority is not None
    trusting = ssl.create_default_context(cafile=str(edge.authority))
    trusting.set_alpn_protocols(["h2"])
    with ExitStack() as stack:
        for _ in range(20):
            attacker = stack.enter_context(closing(RawConnection(_port(edge), trusting)))
            with suppress(HungUp):
                for _ in range(16):
                    attacker.stall(attacker.open_call(), 2 << 20)
        # Without the buffer, a server rejects the neighbour: its request does not arrive in time.
        with channel_to(edge) as channel:
            stub = VisionServiceStub(channel)  # type: ignore[no-untyped-call]
            for _ in range(50):
                stub.Classify(REQUEST, timeout=PATIENCE_S)


def answers(server: Server) -> bool:
    """Return True if a server has answered a call since its start."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=PATIENCE_S) as metrics:
        return f'method="{METHOD}"'.encode() in metrics.read()


def _port(proxy: Proxy) -> int:
    return int(proxy.address.rpartition(":")[2])


def _url(proxy: Proxy, path: str) -> str:
    return f"https://{proxy.address}{path}"


def _post(proxy: Proxy, path: str, content_type: str, body: bytes) -> bytes:
    headers = {"Content-Type": content_type}
    return _open(proxy, urllib.request.Request(_url(proxy, path), body, headers))


def _open(proxy: Proxy, request: urllib.request.Request) -> bytes:
    trusting = ssl.create_default_context(cafile=str(proxy.authority))
    with urllib.request.urlopen(request, timeout=PATIENCE_S, context=trusting) as answer:
        return bytes(answer.read())
