"""Holds the addresses for the workers, which listen there together."""

import socket

from visavis_server.addresses import reserve, why, why_not
from visavis_server.errors import StartupError
from visavis_server.settings import Settings

_SERVED = {"grpc": "listen", "http": "serve HTTP", "metrics": "serve metrics"}


class Reservation:
    """Holds the addresses in the settings. settings: with the ports in the place of 0.

    Raises StartupError if an address is in use by any other server. The kernel would let another
    one with workers of the same user join; so each holds a name of the address as well.
    """

    def __init__(self, settings: Settings) -> None:
        self._held: list[socket.socket] = []
        update = {}
        for name in _SERVED:
            if address := getattr(settings, name):
                update[name] = self._reserve(name, address)
        self.settings = settings.model_copy(update=update)

    def _reserve(self, name: str, address: str) -> str:
        try:
            if trouble := why_not(address):
                raise _unusable(name, address, trouble)
            sockets = reserve(address)
            self._held += sockets
            for each in sockets:
                self._held.append(_name_of(each))
        except OSError as error:
            raise _unusable(name, address, why(error)) from None
        return f"{address.rpartition(':')[0]}:{sockets[0].getsockname()[1]}"


def _name_of(reserved: socket.socket) -> socket.socket:
    """Return a socket that holds a name for a reserved address, in this network namespace."""
    host, port = reserved.getsockname()[:2]
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0visavis {host} {port}")
    except OSError:
        name.close()
        raise
    return name


def _unusable(name: str, address: str, why: str) -> StartupError:
    return StartupError(f"can't {_SERVED[name]} on {address}: {why}; choose another with --{name}")
