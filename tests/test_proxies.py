"""The proxies of deploy/proxies, started as they are shipped but for their addresses."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from visavis import AccessDenied, Client, VisavisError

from tests.faults.process import ServerProcess, free_port, until
from tests.server import graphs
from tests.server.pictures import RED, plain
from tests.surroundings import Surroundings
from visavis_server.transport.tokens import NewToken, new_token

FOLDER = Path(__file__).parents[1] / "deploy" / "proxies"
CONFIGURATIONS = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf", "envoy": "envoy.yaml"}
# Where pip puts programs, and where Debian puts servers.
PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"))
NAMES = ("a", "b")  # of the servers, to HAProxy
# Of the two servers, each over gRPC and over HTTP, and of the proxy.
SHIPPED_PORTS = ("8001", "8000", "8011", "8010", "8100")


@dataclass(frozen=True)
class Server:
    """A server, and where it says over HTTP whether it is ready."""

    process: ServerProcess
    http: str


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs."""

    name: str
    address: str
    log_file: Path


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
    with ExitStack() as stack:
        servers = []
        for _ in NAMES:
            http = f"127.0.0.1:{free_port()}"
            options = ("--http", http, "--tokens", str(tokens), "--open-health")
            process = ServerProcess(folder / "models", folder, *options)
            stack.push(process)
            servers.append(Server(process, http))
        for server in servers:
            server.process.wait_until_ready()
        yield servers


@pytest.fixture(scope="module")
def proxies(
    servers: list[Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Proxy]]:
    """Return those that are installed, by name."""
    with ExitStack() as stack:
        found = [name for name in CONFIGURATIONS if shutil.which(name, path=PATH)]
        folders = {name: tmp_path_factory.mktemp(name) for name in found}
        yield {n: stack.enter_context(started(n, servers, folders[n])) for n in found}


@contextmanager
def started(name: str, servers: list[Server], folder: Path) -> Iterator[Proxy]:
    """Start a proxy with its shipped configuration, at addresses that are free here."""
    port = free_port()
    addresses = [each for server in servers for each in (server.process.address, server.http)]
    here = dict(zip(SHIPPED_PORTS, (*map(port_of, addresses), str(port)), strict=True))
    text = (FOLDER / CONFIGURATIONS[name]).read_text("utf-8")
    file = folder / CONFIGURATIONS[name]
    file.write_text(re.sub(r"\b(?:" + "|".join(here) + r")\b", lambda old: here[old[0]], text))
    if name == "nginx":
        # What a distribution's own file has around it.
        whole_file = folder / "whole.conf"
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        whole_file.write_text(
            f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; {temporary} include {file}; }}\n"
        )
        command = ["-e", "stderr", "-c", str(whole_file)]
    elif name == "haproxy":
        command = ["-db", "-f", str(file)]
    else:
        command = ["-c", str(file), "--concurrency", "1", "--disable-hot-restart"]
    program = shutil.which(name, path=PATH)
    assert program is not None
    log_file = folder / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [program, *command],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=Surroundings.under(folder).environment(),
        )
    try:
        address = f"127.0.0.1:{port}"
        until(lambda: answers(address, process), f"{name} does not answer; see {log_file}")
        yield Proxy(name, address, log_file)
    finally:
        process.terminate()
        process.wait()


def port_of(address: str) -> str:
    return address.rpartition(":")[2]


def answers(address: str, process: "subprocess.Popen[bytes]") -> bool:
    """Say whether a server's health comes through a proxy."""
    assert process.poll() is None, process.args
    with grpc.insecure_channel(address) as channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
    return True


def require(name: str) -> None:
    """Skip where a proxy is not installed; CI has them all."""
    if shutil.which(name, path=PATH) is None:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"needs {name}")


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
