"""A server as the command line names it: its address, and how to connect."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from visavis import connection
from visavis.async_client import AsyncClient
from visavis.client import Client
from visavis.errors import InvalidSettings

SYNTAX: Final = "HOST:PORT[,tls][,ca=FILE][,cert=FILE,key=FILE][,token-file=FILE]"
_KEYS: Final = ("tls", "ca", "cert", "key", "token-file")


@dataclass(frozen=True, slots=True)
class Target:
    """A server. tls, token: as for `Client`."""

    address: str
    tls: connection.TLS | None = None
    token: str | None = None

    def client(self, timeout: float) -> Client:
        """Return a client of the server."""
        return Client(self.address, timeout=timeout, tls=self.tls, token=self.token)

    def async_client(self, timeout: float) -> AsyncClient:
        """Return an asynchronous client of the server."""
        return AsyncClient(self.address, timeout=timeout, tls=self.tls, token=self.token)


def parse_target(text: str, option: str = "--server", syntax: str = SYNTAX) -> Target:
    """Return the server that a text names: HOST:PORT, then options, separated by commas.

    tls: encrypt. ca, cert, key: PEM files, as in `connection.TLS`; they imply tls. token-file: a
    file whose first line is the token. option, syntax: for errors. Raises InvalidSettings.
    """
    address, *options = text.split(",")
    given: dict[str, str] = {}
    for one in options:
        key, _, value = one.partition("=")
        if key not in _KEYS or (key == "tls") == bool(value):
            raise InvalidSettings(f"{option}: {one!r} is unknown; the syntax is {syntax}")
        given[key] = value
    tls = None
    if set(given) - {"token-file"}:
        tls = connection.TLS(given.get("ca"), given.get("cert"), given.get("key"))
    token = _token(given["token-file"]) if "token-file" in given else None
    connection.server(address, 1.0, tls, token)  # Raises InvalidSettings for an invalid address.
    return Target(address, tls, token)


def _token(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").partition("\n")[0].strip()
    except OSError as error:
        raise InvalidSettings(
            f"can't read the token file {path}: {error.strerror}; give the file that holds the "
            "client's token"
        ) from None
    except UnicodeDecodeError:
        raise InvalidSettings(f"the token file {path} is not text") from None
