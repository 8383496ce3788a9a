"""Proxies of deploy/proxies, started as they are shipped but for their addresses."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.faults.process import ServerProcess, free_port, until
from tests.surroundings import Surroundings

FOLDER = Path(__file__).parents[1] / "deploy" / "proxies"
# Where pip puts programs, and where Debian puts servers.
PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"))
# Of the two servers, each over gRPC and over HTTP.
_SHIPPED_PORTS = ("8001", "8000", "8011", "8010")
_SHIPPED_PROXY_PORTS = ("8100", "8443")


@dataclass(frozen=True)
class Server:
    """A server, and where it answers over HTTP."""

    process: ServerProcess
    http: str


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs. authority: who issued its certificate; None without TLS."""

    name: str
    address: str
    log_file: Path
    authority: Path | None


@contextmanager
def two_servers(models: Path, folder: Path, *options: str) -> Iterator[list[Server]]:
    """Run two servers of the same models, each over gRPC and over HTTP."""
    with ExitStack() as stack:
        servers = []
        for _ in "ab":
            http = f"127.0.0.1:{free_port()}"
            process = ServerProcess(models, folder, "--http", http, *options)
            stack.push(process)
            servers.append(Server(process, http))
        for server in servers:
            server.process.wait_until_ready()
        yield servers


def require(name: str) -> None:
    """Skip where a proxy is not installed; CI has them all."""
    if shutil.which(name, path=PATH) is None:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"needs {name}")


def addresses_of(servers: Sequence[Server]) -> list[str]:
    """Return the addresses of servers, each over gRPC and over HTTP."""
    return [each for server in servers for each in (server.process.address, server.http)]


@contextmanager
def started(configuration: str, addresses: Sequence[str], folder: Path) -> Iterator[Proxy]:
    """Start a proxy with its shipped configuration, at addresses that are free here.

    addresses: of the two servers, each over gRPC and over HTTP.
    """
    name = re.split(r"[-.]", configuration)[0]
    port = free_port()
    here = dict(zip(_SHIPPED_PORTS, map(_port_of, addresses), strict=True))
    here |= dict.fromkeys(_SHIPPED_PROXY_PORTS, str(port))
    text = (FOLDER / configuration).read_text("utf-8")
    file = folder / configuration
    file.write_text(re.sub(r"\b(?:" + "|".join(here) + r")\b", lambda old: here[old[0]], text))
    authority = _certify(folder) if "cert.pem" in text else None
    program = shutil.which(name, path=PATH)
    assert program is not None
    log_file = folder / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [program, *_arguments(name, file)],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=Surroundings.under(folder).environment(),
        )
    proxy = Proxy(name, f"localhost:{port}", log_file, authority)
    try:
        until(lambda: _answers(proxy, process), f"{name} does not answer; see {log_file}")
        yield proxy
    finally:
        process.terminate()
        process.wait()


def _arguments(name: str, file: Path) -> list[str]:
    """Return what starts a proxy in the foreground."""
    if name == "haproxy":
        return ["-db", "-f", str(file)]
    if name == "envoy":
        return ["-c", str(file), "--concurrency", "1", "--disable-hot-restart"]
    # What a distribution's own file has around it.
    folder, whole_file = file.parent, file.parent / "whole.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    whole_file.write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {temporary} include {file}; }}\n"
    )
    return ["-e", "stderr", "-c", str(whole_file)]


def _certify(folder: Path) -> Path:
    """Put a certificate for this machine where the proxy looks; return its authority's."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return folder / "ca.pem"


def _port_of(address: str) -> str:
    return address.rpartition(":")[2]


def _answers(proxy: Proxy, process: "subprocess.Popen[bytes]") -> bool:
    """Say whether a server's health comes through a proxy."""
    assert process.poll() is None, process.args
    with channel_to(proxy) as channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
    return True


def channel_to(proxy: Proxy) -> grpc.Channel:
    """Return a channel without retries of its own."""
    options = [("grpc.enable_retries", 0)]
    if proxy.authority is None:
        return grpc.insecure_channel(proxy.address, options)
    credentials = grpc.ssl_channel_credentials(proxy.authority.read_bytes())
    return grpc.secure_channel(proxy.address, credentials, options)
