"""Models that change while they are called."""

import asyncio
import json
import shutil
from pathlib import Path

from visavis.v1 import vision_pb2 as pb

from tests.server import graphs

from .calls import COLORS, channel, stub_of
from .process import ServerProcess

RELOADS, CALLERS = 8, 8


async def test_reloads_under_callers_fail_nothing_and_mix_no_versions(tmp_path: Path) -> None:
    """Every version has its own gain, and so its own score: an answer tells where it comes from."""
    folder = tmp_path / "models"
    put(folder, "colors", 1)
    with ServerProcess(folder, tmp_path, "--watch-s", "0.1") as server:
        report = await reload_under_callers(server, folder, RELOADS, CALLERS)
    assert report["failures"] == []
    assert report["mixed"] == []
    assert report["versions"] == list(range(1, RELOADS + 2))
    left = [e for e in map(json.loads, server.log.splitlines()) if e.get("event") == "left"]
    assert len(left) >= RELOADS - 1  # each old version is freed, but for what a call still holds


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
