"""The event loop of a server's process."""

import asyncio
from collections.abc import Callable

from visavis_server.settings import Settings


def loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop: uvloop's, unless it can't serve the listeners."""
    # uvloop reads ahead before the TLS handshake of an HTTP connection can begin.
    if settings.http and settings.tls_certificate:
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
