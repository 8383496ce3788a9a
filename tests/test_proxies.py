"""The proxies of deploy/proxies, started as they are shipped but for their addresses."""

import shutil
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from visavis import AccessDenied, Client, VisavisError

from tests.faults.process import until
from tests.proxies import PATH, Proxy, Server, addresses_of, require, started, two_servers
from tests.server import graphs
from tests.server.pictures import RED, plain
from visavis_server.transport.tokens import NewToken, new_token

CONFIGURATIONS = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf", "envoy": "envoy.yaml"}
NAMES = ("a", "b")  # of the servers, to HAProxy


@pytest.fixture(scope="module")
def token() -> NewToken:
    return new_token("tests")


@pytest.fixture(scope="module")
def servers(token: NewToken, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    folder = tmp_path_factory.mktemp("servers")
    colors, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    graphs.put(folder / "models", "colors", 1, colors)
    tokens = folder / "tokens"
    tokens.write_text(f"{token.line}\n")
    options = ("--tokens", str(tokens), "--open-health")
    with two_servers(folder / "models", folder, *options) as servers:
        yield servers


@pytest.fixture(scope="module")
def proxies(
    servers: list[Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Proxy]]:
    """Return those that are installed, by name."""
    with ExitStack() as stack:
        found = [name for name in CONFIGURATIONS if shutil.which(name, path=PATH)]
        addresses = addresses_of(servers)
        yield {
            name: stack.enter_context(
                started(CONFIGURATIONS[name], addresses, tmp_path_factory.mktemp(name))
            )
            for name in found
        }


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_refusal_overtakes_the_picture_that_is_still_sent(
    name: str, proxies: dict[str, Proxy]
) -> None:
    require(name)
    picture = plain(RED).ljust(4 << 20, b"\0")
    with Client(proxies[name].address, token="unknown", timeout=20) as client:
        for _ in range(5):
            with pytest.raises(AccessDenied, match="the token is not valid on this server"):
                client.classify(picture, model="colors")


def test_no_call_is_lost_while_one_server_after_the_other_restarts(
    servers: list[Server], proxies: dict[str, Proxy], token: NewToken
) -> None:
    for name in CONFIGURATIONS:
        require(name)
    stop = threading.Event()
    answered: dict[str, int] = defaultdict(int)
    lost: list[tuple[str, VisavisError]] = []

    def call(proxy: Proxy) -> None:
        with Client(proxy.address, token=token.token) as client:
            while not stop.is_set():
                try:
                    client.classify(plain(RED), model="colors")
                    answered[proxy.name] += 1
                except VisavisError as error:
                    lost.append((proxy.name, error))
                    stop.set()

    callers = [threading.Thread(target=call, args=(p,)) for p in proxies.values() for _ in "ab"]
    for caller in callers:
        caller.start()
    try:
        for name, server in zip(NAMES, servers, strict=True):
            answered.clear()
            server.process.signal(signal.SIGTERM)
            assert server.process.wait() == 0
            server.process.start()
            server.process.wait_until_ready()
            # The others ask themselves; HAProxy has to notice before the next one may stop.
            seen = proxies["haproxy"].log_file
            until(lambda: f"visavis/{name} is UP" in seen.read_text(), seen.read_text())  # noqa: B023
            until(lambda: len(answered) == len(proxies) or stop.is_set(), "a proxy hangs")
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert not lost
