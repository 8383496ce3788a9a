"""Where the server listens, over what, and what gRPC itself keeps out."""

import socket
import ssl
from pathlib import Path
from typing import Self

import grpc
import structlog

from server.errors import StartupError
from server.settings import Settings

_log = structlog.get_logger()

# Identity alone: gRPC unpacks a message before it looks how large it has become.
_NO_COMPRESSION = 1
# How much of a message may come before it is its turn: a small picture whole.
_UNREAD_BYTES = 256 << 10
# How long streams may go on when their connection has reached its age.
_AGE_GRACE_MS = 600_000
_KEEPALIVE_TIMEOUT_MS = 20_000
_MAX_PING_STRIKES = 2


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
        ("grpc.http2.lookahead_bytes", _UNREAD_BYTES),
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
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


def bind(server: grpc.aio.Server, settings: Settings) -> int:
    """Listen where the settings say; returns the port. Raises StartupError."""
    address = settings.grpc
    if address.startswith("unix:") and _somebody_listens(address.removeprefix("unix:")):
        raise StartupError(f"can't listen on {address}: another server does; choose another path")
    try:
        certificates = Certificates.of(settings)
        if certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, certificates.credentials())
    except RuntimeError as error:
        raise StartupError(
            f"can't listen on {address}: it is in use, or no address of this machine; "
            "choose another with --grpc"
        ) from error


class Certificates:
    """The server's certificate and key, and whose certificates clients must show: PEM files.

    Files that have changed are read again at the next handshake; where they can't be used, that
    is reported and leaves what was. Raises StartupError if they can't be used at first.
    """

    def __init__(self, certificate: Path, private_key: Path, client_ca: Path | None) -> None:
        self._files = [f for f in (private_key, certificate, client_ca) if f is not None]
        self._contents = self._read()
        self._context: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return those that the settings name; None: a door does without TLS."""
        certificate, private_key = settings.tls_certificate, settings.tls_private_key
        if certificate is None or private_key is None:
            return None
        return cls(certificate, private_key, settings.tls_client_ca)

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a secure port of gRPC takes."""

        def configuration() -> grpc.ServerCertificateConfiguration | None:
            return self._configuration() if self._changed() else None

        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            configuration,  # type: ignore[arg-type]  # None means what the stubs don't know
            require_client_authentication=len(self._files) == 3,
        )
        return credentials

    def context(self) -> ssl.SSLContext:
        """Return what a connection of HTTP is to be secured by, as the files are now."""
        if self._context is None or self._changed():
            try:
                self._context = self._new_context()
            except OSError as error:  # ssl.SSLError among them
                if self._context is None:
                    raise StartupError(f"TLS can't use {self._files[1]}: {error}") from None
                _log.error("certificates stay as they were", why=str(error))
        return self._context

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        private_key, certificate, *authorities = self._files
        context.load_cert_chain(certificate, private_key)
        if authorities:
            context.load_verify_locations(authorities[0])
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _changed(self) -> bool:
        """Say whether the files have changed, and can be read, since the last look."""
        try:
            contents = self._read()
        except StartupError as error:
            _log.error("certificates stay as they were", why=str(error))
            return False
        if contents == self._contents:
            return False
        self._contents = contents
        _log.info("certificates read again", files=[str(file) for file in self._files])
        return True

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        private_key, chain, *authorities = self._contents
        return grpc.ssl_server_certificate_configuration(
            [(private_key, chain)], *(authorities or (None,))
        )

    def _read(self) -> list[bytes]:
        contents = []
        for file in self._files:
            try:
                contents.append(file.read_bytes())
            except OSError as error:
                raise StartupError(f"{file} can't be read: {error.strerror}") from None
            if b"-----BEGIN " not in contents[-1]:
                raise StartupError(f"{file} is no PEM file: it must hold -----BEGIN …-----")
        return contents


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
