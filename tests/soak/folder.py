"""Thousands of pictures through `visavis compare`: memory, interruptions, throughput."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from visavis.bench.workload import calls_of

from tests.faults.process import ServerProcess
from tests.soak.report import Row, Soak, peak_per_s, percent
from tests.surroundings import VISAVIS, Surroundings

_PICTURES: Final = 5000
_MODEL: Final = "resnet18"
_PATIENCE_S: Final = 3600.0


@dataclass(frozen=True)
class _Ended:
    """A run of the command. rss: its memory in MiB by how many pictures were answered."""

    code: int
    said: str
    rss: list[tuple[int, float]]


def folder(soak: Soak) -> Sequence[Row]:
    """Five thousand pictures: the given ones under many names, compared at once and in parts."""
    count = max(60, round(_PICTURES * soak.length))
    pictures = _linked(soak, count)
    with soak.server(soak.site.small) as server:
        whole, parts = soak.folder / "whole", soak.folder / "parts"
        calls = calls_of("compare", (_MODEL,), soak.site.pictures)
        seconds = max(10.0, 60 * soak.length)
        before = asyncio.run(peak_per_s(server, calls, seconds))
        once = _compare(soak, server, pictures, whole)
        # A machine that is shared is not as fast at one time as at another.
        peak = (before + asyncio.run(peak_per_s(server, calls, seconds))) / 2
        ends = [
            _compare(soak, server, pictures, parts, count // 3, signal.SIGINT),
            _compare(soak, server, pictures, parts, 2 * count // 3, signal.SIGKILL),
            _compare(soak, server, pictures, parts),
        ]
    found = re.search(r"([\d.]+) per second", once.said)
    rate = float(found[1]) if found else 0.0
    half = [rss for answered, rss in once.rss if answered >= count // 2]
    early = [rss for answered, rss in once.rss if count // 4 <= answered < count // 2]
    grown = max(half, default=0.0) - max(early, default=0.0)
    same = _figures(whole) == _figures(parts)
    return [
        Row(
            f"throughput of `visavis compare` on a folder of {count:,} pictures",
            "at least 90 % of the rate that `visavis bench` measures on the same server",
            f"{rate:.1f} per second, {percent(rate / peak)} of {peak:.1f}",
            once.code == 0 and rate >= 0.9 * peak,
        ),
        Row(
            "its memory in the second half, compared with the second quarter",
            "grows by less than 30 MiB",
            f"{grown:+.1f} MiB, {max(half, default=0.0):.0f} MiB at most",
            bool(half and early) and grown < 30,
        ),
        Row(
            "the same comparison, interrupted by SIGINT, then by SIGKILL, and resumed each time",
            "the same figures; exit codes 130, -9 and 0; no picture is sent twice",
            f"{'the same' if same else 'other'} figures; exit codes "
            f"{', '.join(str(each.code) for each in ends)}; {_asked(ends[-1]):,} pictures in the "
            "last part",
            same
            and [each.code for each in ends] == [130, -9, 0]
            and 0 < _asked(ends[-1]) <= count - 2 * count // 3,
        ),
    ]


def _linked(soak: Soak, count: int) -> Path:
    """Return a folder of so many pictures: hard links to the given ones, with their labels."""
    given = soak.site.images / "imagenet"
    rows = dict(line.rsplit(",", 1) for line in (given / "labels.csv").read_text().splitlines()[1:])
    own, out = soak.folder / "given", soak.folder / "pictures"
    own.mkdir()
    for name in rows:
        shutil.copy(given / name, own / name)
    labels = ["file,class_index"]
    names = sorted(rows)
    for number in range(count):
        name = names[number % len(names)]
        link = out / f"{number // 500:02}" / f"{number:05}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(own / name, link)
        labels.append(f"{link.relative_to(out)},{rows[name]}")
    (out / "labels.csv").write_text("\n".join(labels), encoding="utf-8")
    return out


def _compare(
    soak: Soak,
    server: ServerProcess,
    pictures: Path,
    out: Path,
    until: int | None = None,
    how: signal.Signals = signal.SIGTERM,
) -> _Ended:
    """Run the command, to its end or until so many pictures are answered."""
    out.mkdir(exist_ok=True)
    answers, found = out / "answers.jsonl", Surroundings.under(soak.folder / "surroundings")
    command = [VISAVIS, "compare", str(pictures), "--server", server.address]
    command += ["--models", _MODEL, "--answers", str(answers), "--json", str(out / "out.json")]
    with (out / "said").open("w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            command, cwd=found.elsewhere, env=found.environment(), stdout=said, stderr=said
        )
        rss = _watch(process, answers, lambda answered: until is not None and answered >= until)
        if process.poll() is None:
            process.send_signal(how)
        code = process.wait(120)
        said.seek(0)
        return _Ended(code, said.read(), rss)


def _watch(
    process: subprocess.Popen[bytes], answers: Path, enough: Callable[[int], bool]
) -> list[tuple[int, float]]:
    """Return memory by pictures answered, until the process ends or there are enough."""
    rss, end = [], time.monotonic() + _PATIENCE_S
    watched = psutil.Process(process.pid)
    position = answered = 0
    while process.poll() is None and time.monotonic() < end:
        if answers.exists():
            with answers.open("rb") as file:
                file.seek(position)
                new = file.read()
            position, answered = position + len(new), answered + new.count(b"\n")
        try:
            rss.append((answered - 1, watched.memory_info().rss / (1 << 20)))
        except psutil.Error:
            break
        if enough(answered - 1):
            break
        time.sleep(0.1)
    return rss


def _figures(out: Path) -> Any:
    """Return all figures but those that depend on time."""
    data = json.loads((out / "out.json").read_text("utf-8"))
    for one in data["models"]:
        for name in ("latency_ms", "dominated_by"):
            one.pop(name, None)
    return data


def _asked(ended: _Ended) -> int:
    found = re.search(r"(\d+) pictures in", ended.said)
    return int(found[1]) if found else 0
