"""What is measured: models from real weights, pictures, and how long."""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import typer
from visavis.bench.channels import Channels
from visavis.bench.limit import Limit
from visavis.bench.own_server import OwnServer, own_server
from visavis.bench.process import Watched
from visavis.bench.rounds import Benchmark, Load, Plan, Row
from visavis.bench.workload import Call, calls_of
from visavis.client import Client
from visavis.errors import ServerFailed

from tests.surroundings import VISAVIS, Surroundings

ROOT = Path(__file__).parents[2]
CLASSIFY, DETECT = ("resnet50",), ("yolov5n",)
INT8 = {"resnet50": "resnet50-int8", "yolov5n": "yolov5n-int8"}
_PICTURES = 20
# How a model file comes about; a change here makes the exported ones stale.
_EXPORT_CODE = (
    "export/visavis_export/**/*.py",
    "server/visavis_server/card/*.py",
    "server/visavis_server/models/golden.py",
)


CACHE = Path("~/.cache/visavis/benchmark").expanduser()


def data_folder(variable: str) -> Path:
    """Return the folder of real data that a variable names; without one, end with what to do."""
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        raise typer.BadParameter(
            f"real weights and pictures are needed: set {variable} to their folder"
        )
    return Path(value).resolve()


async def send_all(address: str, calls: Sequence[Call], count: int, callers: int = 8) -> None:
    """Make so many calls, in turns, some at a time."""
    numbers = iter(range(count))

    async def caller(channels: Channels, own: int) -> None:
        for number in numbers:
            await channels.send(calls[number % len(calls)], own)

    async with Channels(address, callers, 60.0) as channels, asyncio.TaskGroup() as tasks:
        for own in range(callers):
            tasks.create_task(caller(channels, own))


class NotRun(Exception):
    """A row can't be measured here; the text says why."""


@dataclass(frozen=True)
class Site:
    """Where and how long to measure.

    weights, images: folders as the tests have them. cache: where models are kept. minutes: of
    the growth section's constant rate. tell: is told what is under way.
    """

    weights: Path
    images: Path
    cache: Path
    seconds: float = 5.0
    rounds: int = 3
    minutes: float = 0.5
    tell: Callable[[str], None] = field(default=lambda what: None)

    @cached_property
    def fp32(self) -> Path:
        """A repository with ResNet-50 and YOLOv5n. Raises ServerFailed."""
        return self._exported("fp32", {(*CLASSIFY, *DETECT): ()})

    @cached_property
    def small(self) -> Path:
        """A repository with ResNet-18. Raises ServerFailed."""
        return self._exported("small", {("resnet18",): ()})

    @property
    def int8(self) -> Path:
        """A repository with resnet50-int8 and yolov5n-int8. Raises NotRun."""
        if isinstance(self._int8, str):
            raise NotRun(self._int8)
        return self._int8

    @cached_property
    def _int8(self) -> Path | str:
        """The repository; or why there is none, so that it is not tried again for each row."""
        if "--calibration" not in _visavis("export", "--help"):
            return "this export makes no int8"
        options = ("--precision", "int8", "--calibration")
        photographs, scenes = self.images / "imagenet", self.images / "coco" / "images"
        try:
            return self._exported(
                "int8",
                {CLASSIFY: (*options, str(photographs)), DETECT: (*options, str(scenes))},
            )
        except ServerFailed as error:
            return str(error)

    @property
    def pictures(self) -> list[Path]:
        """Photographs to classify."""
        return sorted((self.images / "imagenet").glob("*.JPEG"))[:_PICTURES]

    @property
    def scenes(self) -> list[Path]:
        """Photographs with objects to find."""
        return sorted((self.images / "coco").rglob("*.jpg"))[:_PICTURES]

    @property
    def whole_heads(self) -> dict[str, Path]:
        """The detector of the limit: the original's own export, which decodes its boxes itself.

        Without the file beside the weights, the limit runs the served one, whose boxes are
        decoded outside of the graph, and is the faster for it.
        """
        file = self.weights.parent / "reference" / "yolov5n.onnx"
        return {"yolov5n": file} if file.is_file() else {}

    def rows(
        self,
        method: str,
        names: tuple[str, ...],
        loads: list[Load],
        *,
        served: Path | None = None,
        limit_models: tuple[str, ...] | None = None,
        limit: Path | None = None,
        alone: bool = False,
        as_served: bool = False,
        server_options: tuple[str, ...] = (),
        python: str = sys.executable,
        exact: bool = True,
    ) -> list[Row]:
        """Return what some loads give, in turns with the in-process limit.

        served: the server's repository, limit: the in-process limit's; None: fp32. names:
        the models that are asked; limit_models: those that the limit runs, if others. exact:
        every answer must be the first one's equal, and the limit's. Raises ServerFailed.
        """
        pictures = self.pictures if method == "classify" else self.scenes
        graphs = {name: file for name, file in self.whole_heads.items() if not alone}
        with (
            own_server(served or self.fp32, server_options, python=python) as server,
            Limit(limit or self.fp32, pictures, graphs) as in_process,
        ):
            plan = Plan(
                server.address,
                [calls_of(method, names, pictures)],
                loads,
                seconds=self.seconds,
                rounds=self.rounds,
                check=exact,
            )
            benchmark = Benchmark(
                plan,
                Watched(server.pid),
                in_process,
                limit_models or names,
                limit_alone=alone,
                limit_as_served=as_served,
                on_step=lambda what, seconds: self.tell(f"{method} {', '.join(names)}: {what}"),
            )
            return _checked(benchmark)

    def echo(self, method: str, loads: list[Load]) -> list[Row]:
        """Return what the calls of a method cost at a server that does nothing."""
        pictures = self.pictures if method == "classify" else self.scenes
        command = [sys.executable, "-m", "tests.benchmark.echo"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout
            address = process.stdout.readline().strip()
            calls = [calls_of(method, ("any",), pictures)]
            plan = Plan(address, calls, loads, seconds=self.seconds, rounds=self.rounds)
            return self.load(plan, Watched(process.pid))
        finally:
            process.kill()
            process.communicate()

    def load(self, plan: Plan, watched: Watched | None = None) -> list[Row]:
        """Return what a plan gives at a server that runs already."""
        return _checked(Benchmark(plan, watched, on_step=lambda what, seconds: self.tell(what)))

    @contextmanager
    def server(self, models: Path, *options: str) -> Iterator[tuple[OwnServer, Watched, Client]]:
        """Serve a repository; yields the server, its process and a client."""
        with own_server(models, options) as server, Client(server.address) as client:
            yield server, Watched(server.pid), client

    def _exported(self, kind: str, exports: dict[tuple[str, ...], tuple[str, ...]]) -> Path:
        """Return a repository with some models, exported unless they are there.

        exports: the options of each export, by the names of its models.
        """
        out = self.cache / f"{kind}-{self._fingerprint(repr(exports))}"
        complete = out / ".complete"
        if complete.exists():
            return out
        into = ("--out", str(out), "--weights", str(self.weights))
        for names, options in exports.items():
            self.tell(f"exporting {', '.join(names)}, {kind}")
            _visavis("export", *names, *into, *options)
        complete.touch()
        return out

    def _fingerprint(self, exports: str) -> str:
        digest = hashlib.sha256(exports.encode())
        for pattern in _EXPORT_CODE:
            for path in sorted(ROOT.glob(pattern)):
                digest.update(path.read_bytes())
        for path in sorted(self.weights.iterdir()):
            digest.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime}".encode())
        return digest.hexdigest()[:12]


def _checked(benchmark: Benchmark) -> list[Row]:
    rows = asyncio.run(benchmark.run())
    if not benchmark.plan.check:
        return rows
    if benchmark.limit_difference:
        raise ServerFailed(f"the limit answers otherwise: {benchmark.limit_difference}")
    for row in rows:
        if row.differences:
            raise ServerFailed(f"answers differ at {row.load}: {row.differences[0]}")
    return rows


def _visavis(*arguments: str) -> str:
    """Return what a sub-command prints. Raises ServerFailed, with its error, where it fails."""
    with Surroundings.temporary() as found:
        done = subprocess.run(
            [VISAVIS, *arguments],
            cwd=found.elsewhere,
            env=found.environment({"COLUMNS": "200"}),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        # The last line is the error itself, whatever was printed on the way there.
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise ServerFailed(f"`visavis {' '.join(arguments[:2])}` failed: {last}")
    return done.stdout
