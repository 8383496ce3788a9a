"""Where the server is and how to talk to it: address, channel options, TLS, token."""

import ipaddress
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc

from visavis.errors import InvalidSettings

DEFAULT_ADDRESS = "127.0.0.1:8001"
DEFAULT_TIMEOUT_S = 30.0
# Above what servers take, mostly 32 MiB: it is the server that says what is too large.
MESSAGE_BYTES_MAX = 96 * 1024 * 1024
READY_POLL_S = 0.1

# Every RPC only reads, so repeating one is always safe. UNAVAILABLE: nothing listened, or the
# server was starting or stopping. CANCELLED, which the server never says itself: gRPC or a proxy
# cut the call off, as gRPC does to calls that arrive in the moment that it stops. Not
# RESOURCE_EXHAUSTED: a server that is overloaded must not get four times the load.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "visavis.v1.VisionService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
            "maxResponseMessageBytes": MESSAGE_BYTES_MAX,
        }
    ]
}


@dataclass(frozen=True)
class TLS:
    """Encryption, and who vouches for whom.

    root_certificates: PEM file of the authorities that may vouch for the server; None: those
    that gRPC brings along. certificate, private_key: PEM files by which the client proves who
    it is, where the server asks for that; both or none.
    """

    root_certificates: str | Path | None = None
    certificate: str | Path | None = None
    private_key: str | Path | None = None


@dataclass(frozen=True)
class Endpoint:
    """A server's address as gRPC takes it, and whether it is on this machine."""

    target: str
    local: bool


def endpoint(address: str) -> Endpoint:
    """Return where an address leads.

    address: HOST:PORT, [IPv6]:PORT, unix:PATH, or a gRPC target such as dns:///HOST:PORT.
    Raises InvalidSettings for anything else.
    """
    if address.startswith("unix:"):
        return Endpoint(address, local=True)
    if re.match(r"(dns|ipv4|ipv6|xds):", address):
        return Endpoint(address, local=False)
    if "://" in address:
        raise InvalidSettings(f"address {address!r} is a URL; write HOST:PORT or unix:PATH")
    match = re.fullmatch(r"(?P<host>\[[^]]+\]|[^:/\s]+):(?P<port>\d+)", address)
    if not match or int(match["port"]) not in range(1, 65536):
        raise InvalidSettings(
            f"address {address!r} can't be used; write HOST:PORT, such as {DEFAULT_ADDRESS}, "
            "or unix:PATH"
        )
    return Endpoint(address, local=_is_loopback(match["host"].strip("[]")))


def channel_options(where: Endpoint) -> list[tuple[str, int | str]]:
    """Return gRPC's channel options: limits, retries, keepalive, reconnection."""
    return [
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        # Only what fits into the buffer can be sent again; its default of 256 KiB holds no
        # photograph. A call takes of it only what it sends.
        ("grpc.per_rpc_retry_buffer_size", MESSAGE_BYTES_MAX),
        # A dead connection is noticed within 80 s, and only while a call waits on it: servers
        # close connections whose pings they find too many.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        # A server that starts is found soon after; gRPC would wait up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # http_proxy is not meant for this machine.
        ("grpc.enable_http_proxy", int(not where.local)),
    ]


def channel_credentials(tls: TLS | None) -> grpc.ChannelCredentials | None:
    """Return gRPC's credentials; None for plaintext. Raises InvalidSettings."""
    if tls is None:
        return None
    if (tls.certificate is None) != (tls.private_key is None):
        raise InvalidSettings("a client certificate needs its private key; give both or none")
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(tls.root_certificates),
        private_key=_pem(tls.private_key),
        certificate_chain=_pem(tls.certificate),
    )


def call_metadata(where: Endpoint, tls: TLS | None, token: str | None) -> list[tuple[str, str]]:
    """Return the headers of every call. Raises InvalidSettings.

    A token goes over TLS, or to this machine; anywhere else whoever listens could take it.
    """
    if token is None:
        return []
    if tls is None and not where.local:
        raise InvalidSettings(
            f"a token to {where.target} would travel in the clear; give tls=TLS(...)"
        )
    if not token.isascii() or not token.isprintable() or not token.strip():
        raise InvalidSettings("the token is empty or holds characters that no header can carry")
    # Not gRPC's call credentials: those refuse loopback without TLS.
    return [("authorization", f"Bearer {token.strip()}")]


def traced(metadata: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers of a call, with the caller's trace where he uses OpenTelemetry."""
    # Who traces has imported it; nobody else is to wait for that.
    if (propagate := sys.modules.get("opentelemetry.propagate")) is None:
        return metadata
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return [*metadata, *headers.items()]


def checked_timeout(timeout: float) -> float:
    """Return the timeout in seconds. Raises InvalidSettings unless it is above 0."""
    if not timeout > 0:
        raise InvalidSettings(f"timeout is {timeout} s; it must be above 0")
    return timeout


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pem(path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidSettings(f"can't read {path}: {error.strerror}") from error
