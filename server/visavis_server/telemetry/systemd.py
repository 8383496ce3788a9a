"""What systemd is told: READY, STOPPING, and that the server is alive. Nothing elsewhere.

The protocol is sd_notify(3)'s: datagrams to the socket that systemd names in the environment.
"""

import os
import socket


def notify(state: str) -> None:
    """Tell systemd a state, such as READY=1, where it asked for that."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract names
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        try:
            out.connect(address)
            out.send(state.encode())
        except OSError:  # systemd is gone: nobody to tell
            return


def watchdog_s() -> float | None:
    """Return within how many seconds systemd wants a sign of life; None: it wants none."""
    usec, pid = os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID")
    if not usec or not usec.isdigit() or (pid or str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 1e6
