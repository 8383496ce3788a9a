"""The server that a command asks: one that runs, or one that the command starts for itself."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from visavis.bench.own_server import own_server
from visavis.commands.application import application_installed
from visavis.commands.console import stderr
from visavis.connection import DEFAULT_ADDRESS
from visavis.errors import InvalidSettings

_MODELS: Final = (Path("models"), Path("demo", "models"))
_CONNECT_S: Final = 1.0


@contextlib.contextmanager
def served(server: str, repository: Path | None) -> Iterator[str]:
    """Yield the address of the server to ask.

    With a repository, serve it meanwhile. Without one, and if no server is named and none answers
    at the default address, serve the models that lie here, and say so. Raises InvalidSettings if
    the application is not installed, ServerFailed if the server does not become ready.
    """
    folder = repository or _models_here(server)
    if folder is None:
        yield server
        return
    if not folder.is_dir():
        raise InvalidSettings(
            f"--repository {folder} is not a folder; give one that holds NAME/VERSION/model.onnx"
        )
    if not application_installed():
        raise InvalidSettings(
            "--repository needs the application; install it: pip install visavis-server"
        )
    if repository is None:
        stderr().print(
            f"No server answers at {server}: serving the folder {folder} for this command."
        )
    with own_server(folder) as own:
        yield own.address


def _models_here(server: str) -> Path | None:
    """Return the folder of models to serve if the default server is asked and does not answer."""
    if server != DEFAULT_ADDRESS or os.environ.get("VISAVIS_SERVER"):
        return None
    folder = next((each for each in _MODELS if each.is_dir()), None)
    if folder is None or not application_installed():
        return None
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except OSError:
        return folder
    return None
