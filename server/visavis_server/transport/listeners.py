"""The gRPC listener: its options and its address."""

import errno
import resource
import socket
from pathlib import Path

import grpc
import structlog

from visavis_server.addresses import UNIX, numbered, why_not
from visavis_server.errors import StartupError
from visavis_server.settings import Settings
from visavis_server.transport.certificates import Certificates
from visavis_server.transport.intake import UNREAD_BYTES

_log = structlog.get_logger()

# Identity only: gRPC decompresses a message before it checks its size.
_NO_COMPRESSION = 1
METRICS_CONNECTIONS = 64
"""The most connections of the metrics listener; Prometheus has one or two."""

# Open files besides connections: model files, trials, logs, and those of libraries.
_OTHER_DESCRIPTORS = 128
# Calls that the event loop has not counted yet.
_MAX_UNSEEN_CALLS = 32768
# The time that streams have to end when their connection has reached its maximum age.
_AGE_GRACE_MS = 600_000
_KEEPALIVE_TIMEOUT_MS = 20_000
_MAX_PING_STRIKES = 2
# Of a connection to a Unix socket: its queue is full, it takes other messages, or other users only.
_OCCUPIED = frozenset((errno.EAGAIN, errno.EPROTOTYPE, errno.EACCES))


def within_descriptors(settings: Settings) -> Settings:
    """Return the settings with max_connections reduced to the process's limit of open files.

    Raises that limit to its maximum first. Raises StartupError if the maximum is too low.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most == resource.RLIM_INFINITY:
        return settings
    listeners = 2 if settings.http else 1
    room = (most - _OTHER_DESCRIPTORS - METRICS_CONNECTIONS) // listeners
    if room < 1:
        raise StartupError(
            f"the process may open {most} files (ulimit -n), too few for connections; allow "
            f"{settings.max_connections * listeners + _OTHER_DESCRIPTORS + METRICS_CONNECTIONS}"
        )
    if room >= settings.max_connections:
        return settings
    _log.warning("fewer connections than max_connections", most=room, open_files=most)
    return settings.model_copy(update={"max_connections": room})


def grpc_options(settings: Settings) -> list[tuple[str, int]]:
    """Return gRPC's options; SECURITY.md names the attack that each prevents."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.compression_enabled_algorithms_bitset", _NO_COMPRESSION),
        # Otherwise gRPC buffers more of unread messages the faster the network is.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", UNREAD_BYTES),
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
        # It counts finished calls too, and so resets calls of clients within the limit.
        ("grpc.http.overload_protection", 0),
        ("grpc.server.max_pending_requests", _MAX_UNSEEN_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", _MAX_UNSEEN_CALLS),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", _ms(settings.handshake_timeout_s)),
        ("grpc.max_connection_idle_ms", _ms(settings.max_connection_idle_s)),
        ("grpc.max_connection_age_ms", _ms(settings.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", _AGE_GRACE_MS),
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(settings.min_ping_interval_s)),
        ("grpc.http2.max_ping_strikes", _MAX_PING_STRIKES),
        ("grpc.keepalive_permit_without_calls", 1),
        # For workers only: otherwise a second server on the port would silently take half of the
        # calls.
        ("grpc.so_reuseport", int(settings.has_workers)),
    ]


def bind(server: grpc.aio.Server, settings: Settings, certificates: Certificates | None) -> int:
    """Listen on the address in the settings, and return the port. Raises StartupError."""
    address = settings.grpc
    is_unix = address.startswith(UNIX)
    if is_unix and _is_in_use(address.removeprefix(UNIX)):
        raise StartupError(
            f"can't listen on {address}: it is in use by another server; choose another path"
        )
    # gRPC succeeds if it can listen on one of a host's addresses, even if others are in use. A
    # worker must not try: its socket would get connections meanwhile. Its supervisor has.
    if not (is_unix or settings.has_workers) and (trouble := why_not(address)):
        raise _cannot_listen(address, trouble)
    try:
        target = address if is_unix else numbered(address)
        if certificates is None:
            return server.add_insecure_port(target)
        return server.add_secure_port(target, certificates.credentials())
    except RuntimeError as error:
        raise _cannot_listen(address, why_not(address) or "gRPC can't use the address") from error


def _cannot_listen(address: str, why: str) -> StartupError:
    return StartupError(f"can't listen on {address}: {why}; choose another with --grpc")


def _is_in_use(path: str) -> bool:
    """Return True if a server listens on a Unix socket, which gRPC would silently replace."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except OSError as error:
            return error.errno in _OCCUPIED and Path(path).is_socket()
        return True


def _ms(seconds: float) -> int:
    return round(seconds * 1e3)
