"""Compare models on pictures with asyncio: python asynchronous.py 127.0.0.1:8001 bus.jpg ..."""

import asyncio
import sys
from collections.abc import Sequence

from visavis import AsyncClient


async def compare(client: AsyncClient, pictures: Sequence[str]) -> None:
    """Print each model's best label or box count, as a table per picture."""
    async for item in client.compare_many(pictures, concurrency=2):
        print(item.image)
        print(item.unwrap().to_pandas()[["model", "answers", "best_label"]])


def main(address: str, *pictures: str) -> None:
    """Make the client before its loop runs, as a web application does."""
    client = AsyncClient(address)

    async def run() -> None:
        async with client:
            await client.wait_until_ready(timeout=10)
            await compare(client, pictures)

    asyncio.run(run())


if __name__ == "__main__":
    main(*sys.argv[1:])
