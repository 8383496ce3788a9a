"""TLS certificates of all listeners, reloaded when their files change."""

import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
import structlog

from visavis_server.errors import StartupError
from visavis_server.settings import Settings
from visavis_server.transport.watched_files import WatchedFiles

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Identity:
    """Parsed PEM files; context: the same for HTTP. authorities: the CA of client certificates."""

    private_key: bytes
    chain: bytes
    authorities: bytes | None
    context: ssl.SSLContext


class Certificates:
    """The server's certificate and private key, and the CA of client certificates: PEM files.

    client_ca: None if clients need no certificate. files: the files, reloaded within a second of a
    change, for the next handshake. Raises StartupError if they are unusable at first.
    """

    def __init__(self, certificate: Path, private_key: Path, client_ca: Path | None) -> None:
        paths = [private_key, certificate, *([client_ca] if client_ca else [])]
        self._client_ca = client_ca
        self.files = WatchedFiles("certificates", paths, lambda contents: _parse(paths, contents))

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return the certificates in the settings; None if they have none."""
        certificate, private_key = settings.tls_certificate, settings.tls_private_key
        if certificate is None or private_key is None:
            return None
        return cls(certificate, private_key, settings.tls_client_ca)

    def context(self) -> ssl.SSLContext:
        """Return the TLS context for a new HTTP connection."""
        return self.files.value.context

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials for gRPC's secure port."""
        used = self.files.value

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal used
            if self.files.value is used:
                return None
            used = self.files.value
            return _configuration(used)

        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            _configuration(used),
            changed,  # type: ignore[arg-type]  # None (no change) is missing in the stubs
            require_client_authentication=self._client_ca is not None,
        )
        return credentials


def _configuration(identity: _Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.private_key, identity.chain)], identity.authorities
    )


def _parse(paths: list[Path], contents: list[bytes]) -> _Identity:
    """Parse PEM files. Raises StartupError, which names the files, if TLS can't use them."""
    for path, content in zip(paths, contents, strict=True):
        if b"-----BEGIN " not in content:
            raise StartupError(f"{path} is not a PEM file: it has no -----BEGIN …-----")
    private_key, chain, *authorities = contents
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # OpenSSL takes files only. These are in memory, with the contents that were read above.
        with _in_memory(chain) as chain_file, _in_memory(private_key) as key_file:
            # Rejects an encrypted key, instead of asking for its password on the terminal.
            context.load_cert_chain(chain_file, key_file, password=lambda: "")
            valid = ssl._ssl._test_decode_cert(chain_file)  # type: ignore[attr-defined]
        if authorities:
            context.load_verify_locations(cadata=authorities[0].decode("ascii", "replace"))
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise StartupError(
                f"the private key {paths[0]} does not match the certificate {paths[1]}; use the "
                "key of this certificate"
            ) from None
        raise StartupError(f"TLS can't use {', '.join(map(str, paths))}: {error}") from None
    if ssl.cert_time_to_seconds(valid["notAfter"]) < time.time():
        _log.warning("the certificate has expired", file=str(paths[1]), when=valid["notAfter"])
    return _Identity(private_key, chain, authorities[0] if authorities else None, context)


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Yield a path from which the content can be read, in memory only."""
    with open(os.memfd_create("pem"), "wb", buffering=0) as file:
        file.write(content)
        yield f"/proc/self/fd/{file.fileno()}"
