"""Replaces a model again and again while it is called, and says what went wrong."""

import asyncio
import shutil
from pathlib import Path

from visavis.v1 import vision_pb2 as pb

from tests.server import graphs

from .calls import COLORS, channel, stub_of
from .process import ServerProcess


def put(folder: Path, name: str, version: int) -> None:
    """Write a version whose scores tell it from others."""
    document = graphs.classifier_document()
    contents, _ = graphs.export(graphs.classifier(gain=1.0 + version / 10), document)
    graphs.put(folder, name, version, contents)


async def reload_under_callers(
    server: ServerProcess, folder: Path, reloads: int, callers: int, first: int = 1
) -> dict[str, list[object]]:
    """Replace colors by its next version again and again under calls; return what went wrong.

    first: the version that is served at the beginning.
    """
    failures: list[object] = []
    mixed: list[object] = []
    seen: dict[int, set[float]] = {}
    over = asyncio.Event()

    def note(version: int, score: float) -> None:
        seen.setdefault(version, set()).add(round(score, 5))

    async def call(number: int) -> None:
        encoded = COLORS["red"]
        async with channel(server.address) as one:
            stub = stub_of(one)
            while not over.is_set():
                try:
                    if number % 2:
                        request = pb.CompareRequest(
                            image=pb.Image(encoded=encoded), models=["colors"]
                        )
                        answer = await stub.Compare(request, timeout=30)
                        (task,) = answer.comparisons
                        by = {(a.served_by.model, a.served_by.version) for a in task.answers}
                        cards = {(m.name, m.version) for m in answer.models}
                        if by != cards:
                            mixed.append((sorted(by), sorted(cards)))
                        (found,) = (a for a in task.answers if a.served_by.model == "colors")
                    else:
                        request = pb.ClassifyRequest(
                            image=pb.Image(encoded=encoded), model="colors"
                        )
                        found = await stub.Classify(request, timeout=30)
                    note(found.served_by.version, found.classifications[0].score)
                except Exception as error:  # noqa: BLE001  whatever it is, it is reported
                    failures.append(repr(error)[:300])

    calls = [asyncio.create_task(call(number)) for number in range(callers)]
    for version in range(first + 1, first + reloads + 1):
        # Both are served for a moment, then only the new one.
        put(folder, "colors", version)
        while version not in seen:
            await asyncio.sleep(0.02)
        shutil.rmtree(folder / "colors" / str(version - 1))
    over.set()
    await asyncio.gather(*calls)
    for version, scores in seen.items():
        if len(scores) != 1:
            mixed.append((version, sorted(scores)))
    return {"failures": failures, "mixed": mixed, "versions": sorted(seen)}
