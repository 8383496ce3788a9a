"""Opens the playground in the user's browser."""

import os
import subprocess
import sys
from threading import Thread

import structlog

_log = structlog.get_logger()

_PROGRAM = "import sys, webbrowser; sys.exit(not webbrowser.open(sys.argv[1]))"
# Listeners on all addresses are reached through loopback.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


def open_page(address: str, *, tls: bool) -> None:
    """Open the page that an HTTP listener serves at HOST:PORT. Returns at once.

    Logs the URL, and a warning if there is no browser.
    """
    host, _, port = address.rpartition(":")
    url = f"{'https' if tls else 'http'}://{_LOOPBACK.get(host, host)}:{port}/"
    _log.info("opening the page", url=url)
    # A browser that runs in the foreground ends only when its user closes it.
    Thread(target=_open, args=(url,), name="browser", daemon=True).start()


def _open(url: str) -> None:
    # Without TERM, webbrowser chooses no text browser, which would take over the terminal. In a
    # session of its own, the browser does not get the Ctrl-C that stops the server.
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM, url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name != "TERM"},
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        _log.warning("no browser was found", why=f"open {url} yourself")
