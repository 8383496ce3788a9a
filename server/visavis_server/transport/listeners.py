"""Where the server listens, over what, and what gRPC itself keeps out."""

import os
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
import structlog

from visavis_server.addresses import UNIX, numbered, why_not
from visavis_server.errors import StartupError
from visavis_server.settings import Settings
from visavis_server.transport.intake import UNREAD_BYTES
from visavis_server.transport.watched_files import WatchedFiles

_log = structlog.get_logger()

# Identity alone: gRPC unpacks a message before it looks how large it has become.
_NO_COMPRESSION = 1
METRICS_CONNECTIONS = 64
"""Connections of the door that serves metrics alone: Prometheus has one or two."""

# What is open besides connections: model files, trials, logs, and what libraries open.
_OTHER_DESCRIPTORS = 128
# Calls that the loop has not seen yet, and so nobody has counted.
_MAX_UNSEEN_CALLS = 32768
# How long streams may go on when their connection has reached its age.
_AGE_GRACE_MS = 600_000
_KEEPALIVE_TIMEOUT_MS = 20_000
_MAX_PING_STRIKES = 2


def within_descriptors(settings: Settings) -> Settings:
    """Return the settings with no more connections than the process may have open files.

    Raises the limit of open files to the most that is allowed; StartupError if that is too low.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most == resource.RLIM_INFINITY:
        return settings
    doors = 2 if settings.http else 1
    room = (most - _OTHER_DESCRIPTORS - METRICS_CONNECTIONS) // doors
    if room < 1:
        raise StartupError(
            f"the process may open {most} files (ulimit -n), which leaves none for connections; "
            f"{settings.max_connections * doors + _OTHER_DESCRIPTORS + METRICS_CONNECTIONS} will do"
        )
    if room >= settings.max_connections:
        return settings
    _log.warning("fewer connections than max_connections", most=room, open_files=most)
    return settings.model_copy(update={"max_connections": room})


def grpc_options(settings: Settings) -> list[tuple[str, int]]:
    """Return gRPC's options; SECURITY.md says which attack each of them answers."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.compression_enabled_algorithms_bitset", _NO_COMPRESSION),
        # gRPC would let messages that nobody reads yet grow with the speed of the network.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", UNREAD_BYTES),
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
        # It counts calls that have ended, and so resets calls of clients that keep to the limit.
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
        # Otherwise a second server on the port would take half of the calls, unnoticed.
        ("grpc.so_reuseport", 0),
    ]


def bind(server: grpc.aio.Server, settings: Settings, certificates: "Certificates | None") -> int:
    """Listen where the settings say; returns the port. Raises StartupError."""
    address = settings.grpc
    is_unix = address.startswith(UNIX)
    if is_unix and _somebody_listens(address.removeprefix(UNIX)):
        raise StartupError(f"can't listen on {address}: another server does; choose another path")
    # gRPC is content with one of several addresses of a host, whoever listens at the others.
    if not is_unix and (trouble := why_not(address)):
        raise _cannot_listen(address, trouble)
    try:
        place = address if is_unix else numbered(address)
        if certificates is None:
            return server.add_insecure_port(place)
        return server.add_secure_port(place, certificates.credentials())
    except RuntimeError as error:
        raise _cannot_listen(address, why_not(address) or "gRPC can't use it") from error


@dataclass(frozen=True, slots=True)
class _Identity:
    """What PEM files hold: a key, its chain, whose certificates clients must show; and for HTTP."""

    private_key: bytes
    chain: bytes
    authorities: bytes | None
    context: ssl.SSLContext


class Certificates:
    """The server's certificate and key, and whose certificates clients must show: PEM files.

    files: where they come from; a change counts at the next handshake, after a second at most.
    Raises StartupError if they can't be used at first.
    """

    def __init__(self, certificate: Path, private_key: Path, client_ca: Path | None) -> None:
        paths = [private_key, certificate, *([client_ca] if client_ca else [])]
        self._client_ca = client_ca
        self.files = WatchedFiles(
            "certificates", paths, lambda contents: _understood(paths, contents)
        )

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return those that the settings name; None: a door does without TLS."""
        certificate, private_key = settings.tls_certificate, settings.tls_private_key
        if certificate is None or private_key is None:
            return None
        return cls(certificate, private_key, settings.tls_client_ca)

    def context(self) -> ssl.SSLContext:
        """Return what a connection of HTTP is to be secured by."""
        return self.files.value.context

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a secure port of gRPC takes."""
        used = self.files.value

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal used
            if self.files.value is used:
                return None
            used = self.files.value
            return _configuration(used)

        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            _configuration(used),
            changed,  # type: ignore[arg-type]  # None means what the stubs don't know
            require_client_authentication=self._client_ca is not None,
        )
        return credentials


def _configuration(identity: _Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.private_key, identity.chain)], identity.authorities
    )


def _understood(paths: list[Path], contents: list[bytes]) -> _Identity:
    """Return what PEM files hold. Raises StartupError, naming the files, if TLS can't use it."""
    for path, content in zip(paths, contents, strict=True):
        if b"-----BEGIN " not in content:
            raise StartupError(f"{path} is no PEM file: it must hold -----BEGIN …-----")
    private_key, chain, *authorities = contents
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # OpenSSL wants files: these are in memory, and hold what was read and nothing newer.
        with _in_memory(chain) as chain_file, _in_memory(private_key) as key_file:
            # A key that is encrypted is refused: nobody is there to be asked for its password.
            context.load_cert_chain(chain_file, key_file, password=lambda: "")
            valid = ssl._ssl._test_decode_cert(chain_file)  # type: ignore[attr-defined]
        if authorities:
            context.load_verify_locations(cadata=authorities[0].decode("ascii", "replace"))
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise StartupError(
                f"the private key {paths[0]} does not fit the certificate {paths[1]}: "
                "it is another certificate's"
            ) from None
        raise StartupError(f"TLS can't use {', '.join(map(str, paths))}: {error}") from None
    if ssl.cert_time_to_seconds(valid["notAfter"]) < time.time():
        _log.warning("the certificate has expired", file=str(paths[1]), when=valid["notAfter"])
    return _Identity(private_key, chain, authorities[0] if authorities else None, context)


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Give a path at which some bytes can be read, without their being on a disk."""
    with open(os.memfd_create("pem"), "wb", buffering=0) as file:
        file.write(content)
        yield f"/proc/self/fd/{file.fileno()}"


def _cannot_listen(address: str, why: str) -> StartupError:
    return StartupError(f"can't listen on {address}: {why}; choose another with --grpc")


def _somebody_listens(path: str) -> bool:
    """Say whether a server answers at a Unix socket: gRPC would take its place without a word."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def _ms(seconds: float) -> int:
    return round(seconds * 1e3)
