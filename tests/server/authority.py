"""Certificates for the tests' servers and their clients."""

import ssl
from pathlib import Path
from typing import Any

import grpc
import trustme

from visavis_server.app import App

from .serving import settings


class Authority:
    """A certificate authority, and files as a server and its clients want them."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.folder = trustme.CA(), folder
        self.root = self.ca.cert_pem.bytes()
        self.certificate, self.key = folder / "chain.pem", folder / "key.pem"
        self.client_ca = folder / "ca.pem"
        self.client_ca.write_bytes(self.root)
        self.issue()

    def issue(self) -> None:
        """Write a new certificate for this machine."""
        issued = self.ca.issue_cert("localhost", "127.0.0.1")
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())

    def channel(self, app: App, client: bool = False) -> grpc.aio.Channel:
        """Return a channel to a server, that trusts only this authority."""
        key = chain = None
        if client:
            issued = self.ca.issue_cert("client@tests")
            key = issued.private_key_pem.bytes()
            chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        credentials = grpc.ssl_channel_credentials(self.root, key, chain)
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(f"localhost:{app.port}", credentials, options)

    def context(self, client: bool = False) -> ssl.SSLContext:
        """Return what a client of HTTP uses, that trusts only this authority."""
        context = ssl.create_default_context(cadata=self.root.decode())
        if client:
            self.ca.issue_cert("client@tests").configure_cert(context)
        return context


def with_tls(models: Path, authority: Authority, **changes: Any) -> App:
    files = {"tls_certificate": authority.certificate, "tls_private_key": authority.key}
    return App(settings(models, **files, **changes))
