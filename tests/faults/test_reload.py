"""Models that change while they are called."""

import json
from pathlib import Path

from .process import ServerProcess
from .reloading import put, reload_under_callers

RELOADS, CALLERS = 8, 8


async def test_reloads_under_callers_fail_nothing_and_mix_no_versions(tmp_path: Path) -> None:
    """Every version has its own gain, and so its own score: an answer tells where it comes from."""
    folder = tmp_path / "models"
    put(folder, "colors", 1)
    with ServerProcess(folder, tmp_path, "--watch-interval-s", "0.1") as server:
        report = await reload_under_callers(server, folder, RELOADS, CALLERS)
    assert report["failures"] == []
    assert report["mixed"] == []
    assert report["versions"] == list(range(1, RELOADS + 2))
    left = [e for e in map(json.loads, server.log.splitlines()) if e.get("event") == "left"]
    assert len(left) >= RELOADS - 1  # each old version is freed, but for what a call still holds
    assert "colors/1" in {entry["model"] for entry in left}  # that of the start too
    assert not any("request_id" in entry for entry in left)
