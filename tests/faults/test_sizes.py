"""A server as people start it, and requests of which one stopped everything for 8 to 99 s."""

import asyncio

from .conftest import Serve
from .sizes import large_requests, longest_health_s

# With the largest message a server takes by default, and with more.
LARGEST, TOO_LARGE = 32 << 20, 70_000_000
# Health waits for its turn on cores that are shared, and for gRPC to copy messages.
PATIENCE_S = 4.0


def test_health_is_answered_while_millions_of_empty_fields_are_refused(serve: Serve) -> None:
    with serve("--max-message-bytes", str(LARGEST)) as server:
        longest_s, codes = asyncio.run(
            longest_health_s(server.address, large_requests(LARGEST - 1000))
        )
        assert codes == {"INVALID_ARGUMENT"} and longest_s < PATIENCE_S
        longest_s, codes = asyncio.run(longest_health_s(server.address, large_requests(TOO_LARGE)))
        assert codes == {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"} and longest_s < PATIENCE_S
        assert "call failed" not in server.log
