"""The server's address, and the channel to it: options, TLS, token."""

import ipaddress
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import grpc
from grpc_health.v1 import health_pb2_grpc

from visavis.errors import InvalidSettings
from visavis.v1 import vision_pb2_grpc

DEFAULT_ADDRESS = "127.0.0.1:8001"
DEFAULT_TIMEOUT_S = 30.0
# Larger than the usual server limit of 32 MiB, so that the server decides what is too large.
MESSAGE_BYTES_MAX = 96 * 1024 * 1024
READY_POLL_S = 0.1
# A bit for each algorithm; the first is identity.
_NO_COMPRESSION = 1

# Every RPC is read-only, so retries are safe. UNAVAILABLE: the server is down, starting or
# stopping. CANCELLED: the server never sends it; gRPC or a proxy cut the call off, as gRPC does to
# calls that arrive during shutdown. RESOURCE_EXHAUSTED is not retried: that would multiply the
# load on an overloaded server by four.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": "visavis.v1.VisionService"},
                {"service": "inference.GRPCInferenceService"},
            ],
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

_Channel = TypeVar("_Channel")

# Bytes for names that end in "-bin", text for all others.
Headers: TypeAlias = Mapping[str, str | bytes]
_Metadata: TypeAlias = list[tuple[str, str | bytes]]
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")


@dataclass(frozen=True)
class TLS:
    """The certificates of an encrypted connection.

    root_certificates: PEM file of the authorities that sign server certificates; None for gRPC's
    built-in ones. certificate, private_key: PEM files of the client's own certificate, for
    servers that require one; give both or neither.
    """

    root_certificates: str | Path | None = None
    certificate: str | Path | None = None
    private_key: str | Path | None = None


@dataclass(frozen=True)
class Endpoint:
    """A server's address in gRPC's syntax. local: True if it is on this machine."""

    target: str
    local: bool


class Stubs:
    """The vision and health services of one channel, and the channel itself."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        self.channel: Any = channel
        # The generated stubs have no types.
        self.vision: Any = vision_pb2_grpc.VisionServiceStub(channel)  # type: ignore[no-untyped-call]
        self.health: Any = health_pb2_grpc.HealthStub(channel)


@dataclass(frozen=True)
class Server:
    """A server and how to call it: the validated settings of a client."""

    address: str
    endpoint: Endpoint
    timeout_s: float
    credentials: grpc.ChannelCredentials | None
    headers: _Metadata

    def open(
        self,
        insecure: Callable[..., _Channel],
        secure: Callable[..., _Channel],
        most_bytes: int = MESSAGE_BYTES_MAX,
    ) -> _Channel:
        """Return a channel to the server, made by one of the two gRPC functions.

        most_bytes: the largest response.
        """
        options = channel_options(self.endpoint, most_bytes)
        if self.credentials is None:
            return insecure(self.endpoint.target, options)
        return secure(self.endpoint.target, self.credentials, options)

    def seconds(self, timeout: float | None) -> float:
        """Return the timeout of one call. Raises InvalidSettings unless it is above 0."""
        return self.timeout_s if timeout is None else _checked_timeout(timeout)

    def metadata(self, headers: Headers | None = None) -> _Metadata:
        """Return the headers of one call, with the current OpenTelemetry trace if any.

        headers: those of this call alone; they replace the client's of the same name. Raises
        InvalidSettings.
        """
        metadata = self.headers
        if headers:
            own = checked_headers(headers)
            names = {name for name, _ in own}
            metadata = [*(pair for pair in metadata if pair[0] not in names), *own]
        # An application that traces has imported OpenTelemetry; others are spared the import.
        if (propagate := sys.modules.get("opentelemetry.propagate")) is None:
            return metadata
        trace: dict[str, str] = {}
        propagate.inject(trace)
        return [*metadata, *trace.items()]


def server(
    address: str,
    timeout: float,
    tls: TLS | None,
    token: str | None,
    headers: Headers | None = None,
) -> Server:
    """Return a client's settings. Raises InvalidSettings."""
    where = endpoint(address)
    return Server(
        address=address,
        endpoint=where,
        timeout_s=_checked_timeout(timeout),
        credentials=channel_credentials(tls),
        headers=[*call_metadata(where, tls, token), *checked_headers(headers or {})],
    )


def endpoint(address: str) -> Endpoint:
    """Return the endpoint at an address.

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
            f"invalid address {address!r}; write HOST:PORT, such as {DEFAULT_ADDRESS}, or unix:PATH"
        )
    return Endpoint(address, local=_is_loopback(match["host"].strip("[]")))


def channel_options(
    where: Endpoint, most_bytes: int = MESSAGE_BYTES_MAX
) -> list[tuple[str, int | str]]:
    """Return gRPC's channel options: limits, retries, keepalive, reconnection.

    most_bytes: the largest response.
    """
    return [
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", most_bytes),
        # gRPC decompresses a response before it checks its size.
        ("grpc.compression_enabled_algorithms_bitset", _NO_COMPRESSION),
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        # gRPC retries only requests that fit into this buffer, and the default of 256 KiB is
        # smaller than a photograph. A call uses no more of it than it sends.
        ("grpc.per_rpc_retry_buffer_size", MESSAGE_BYTES_MAX),
        # Detect a dead connection within 80 s, but ping only during calls: servers close
        # connections that ping too often.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        # Reconnect soon after a server starts; by default gRPC waits up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # Connections to this machine bypass http_proxy.
        ("grpc.enable_http_proxy", int(not where.local)),
    ]


def channel_credentials(tls: TLS | None) -> grpc.ChannelCredentials | None:
    """Return gRPC's credentials; None for plaintext. Raises InvalidSettings."""
    if tls is None:
        return None
    if (tls.certificate is None) != (tls.private_key is None):
        raise InvalidSettings("a client certificate needs its private key; give both or neither")
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(tls.root_certificates),
        private_key=_pem(tls.private_key),
        certificate_chain=_pem(tls.certificate),
    )


def call_metadata(where: Endpoint, tls: TLS | None, token: str | None) -> _Metadata:
    """Return the header with the token. Raises InvalidSettings.

    A token is sent over TLS or to this machine only; elsewhere anyone on the network could read it.
    """
    if token is None:
        return []
    if tls is None and not where.local:
        raise InvalidSettings(
            f"the token for {where.target} would be sent in the clear; give tls=TLS(...)"
        )
    if not token.isascii() or not token.isprintable() or not token.strip():
        raise InvalidSettings(
            "the token is empty or has characters that are not allowed in a header; use printable "
            "ASCII"
        )
    # gRPC's own call credentials refuse plaintext connections, even to loopback.
    return [("authorization", f"Bearer {token.strip()}")]


def checked_headers(headers: Headers) -> _Metadata:
    """Return headers as gRPC takes them, with names in lower case. Raises InvalidSettings."""
    return [(name.lower(), _checked_value(name.lower(), headers[name])) for name in headers]


def _checked_value(name: str, value: str | bytes) -> str | bytes:
    if name == "authorization":
        raise InvalidSettings("the header authorization is set by the option `token`")
    if not _HEADER_NAME.fullmatch(name) or name.startswith("grpc-"):
        raise InvalidSettings(
            f"invalid header name {name!r}; use a-z, 0-9, _, - and ., and not gRPC's own names"
        )
    if name.endswith("-bin"):
        if not isinstance(value, bytes):
            raise InvalidSettings(f"the header {name} must be bytes, because its name ends in -bin")
    elif not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise InvalidSettings(f"the header {name} must be printable ASCII text")
    return value


def _checked_timeout(timeout: float) -> float:
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
