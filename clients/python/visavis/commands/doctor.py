"""`visavis doctor`: check the installation and the server."""

import importlib
import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from rich.table import Table
from rich.text import Text

from visavis.commands import options
from visavis.commands.application import application_installed
from visavis.commands.console import plain, stdout
from visavis.commands.failures import exit_codes
from visavis.connection import DEFAULT_TIMEOUT_S
from visavis.errors import InvalidSettings, VisavisError
from visavis.target import parse_target

Row = tuple[str, str, str]

_STYLES = {"ok": "green", "missing": "bold yellow", "info": "dim"}
_READY_WITHIN_S = 2.0


def doctor(server: options.Server = options.SERVER) -> None:
    """Check the installation, the server and GPU support."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    with exit_codes():
        seen: set[str] = set()
        for name, status, text in (*_client_rows(), _server_row(server), *_application_rows()):
            if name in seen:  # The application repeats the packages that it shares with the client.
                continue
            seen.add(name)
            grid.add_row(
                Text(plain(status), style=_STYLES.get(status, "")),
                Text(plain(name), style="bold"),
                "\n".join(plain(line) for line in text.splitlines()),
            )
    stdout().print(grid)


def _client_rows() -> Iterator[Row]:
    yield "visavis", "ok", metadata.version("visavis")
    yield "python", "ok", f"{platform.python_version()} at {sys.executable}"
    yield "platform", "info", platform.platform()
    for name in ("grpcio", "protobuf"):
        yield name, "ok", metadata.version(name)


def _server_row(address: str) -> Row:
    try:
        with parse_target(address).client(DEFAULT_TIMEOUT_S) as client:
            # In this order: only `list_models` fails at once if nothing listens at the address.
            names = ", ".join(card.name for card in client.list_models(timeout=_READY_WITHIN_S))
            client.wait_until_ready(_READY_WITHIN_S)
    except InvalidSettings:
        raise
    except VisavisError as error:
        message = error.message
        return "server", "missing", message if address in message else f"{address}: {message}"
    return "server", "ok", f"ready at {address}; models: {names or 'none'}"


def _application_rows() -> Iterator[Row]:
    if not application_installed():
        yield "visavis-server", "info", "not installed; to serve models: pip install visavis-server"
        return
    yield "visavis-server", "ok", metadata.version("visavis-server")
    try:
        report = importlib.import_module("visavis_server.tools.doctor").report
    except (ImportError, AttributeError) as error:
        yield "visavis_server.tools.doctor", "missing", f"can't check the application: {error}"
        return
    yield from report()
