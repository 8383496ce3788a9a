"""`python -m visavis_server.tools.limit`: the upper bound, the server's work without a server.

Encoded pictures are decoded, pre-processed, run and post-processed in one Python thread per core.
The threads share one session per model, with one intra-op thread and batch 1. Pre-processing is a
plain implementation of the original's, so that the server's optimizations don't raise its bound.

It reads commands as lines of JSON on stdin and writes one line of JSON to stdout for each, so that
it can take turns with a server: idle, it uses no CPU. Its first line describes it.

    {"run": ["resnet50"], "seconds": 5}                 -> {"per_s": …, "p50_ms": …, "cpu_ms": …}
    {"run": ["resnet50"], "seconds": 5, "alone": true}  one picture at a time, on all cores
    {"run": ["resnet50"], "seconds": 5, "as_served": true}  with the server's own pre-processing
    {"answers": ["resnet50", "yolov5n"]}                -> {"answers": [{"resnet50": […], …}, …]}

With several names, each picture is decoded once and every model runs on it, as in Compare.
Errors are reported as {"error": …}.
"""

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import onnxruntime as ort
import typer
from PIL import Image as PillowImage

from visavis_server.arrays import Image, Tensor
from visavis_server.card import (
    METADATA_KEY,
    CandidateRows,
    Letterbox,
    ModelDocument,
    ShorterSide,
    output_names,
    parse_document,
)
from visavis_server.errors import ModelFileError, StartupError
from visavis_server.models.model_files import scan
from visavis_server.models.onnx_file import read_onnx_file
from visavis_server.runtime.cores import usable_cores
from visavis_server.runtime.providers import never_saturate
from visavis_server.vision.boxes import letterbox
from visavis_server.vision.families import Family, family_of, preprocess_one
from visavis_server.vision.results import (
    Classified,
    ClassifyOptions,
    Detected,
    DetectOptions,
    Options,
)


@dataclass(frozen=True)
class Pipeline:
    """One model, from pixels to its answer.

    preprocess: returns the input [1, 3, height, width] and the geometry for the family.
    """

    name: str
    session: ort.InferenceSession
    outputs: list[str]
    preprocess: Callable[[Image], tuple[Tensor, Any]]
    family: Family
    options: ClassifyOptions | DetectOptions

    def answer(self, image: Image) -> Classified | Detected:
        """Return the model's answer for an image, uint8 RGB [H, W, 3]."""
        tensor, geometry = self.preprocess(image)
        outputs = self.session.run(self.outputs, {self.session.get_inputs()[0].name: tensor})
        return self.family.postprocess(outputs, geometry, self.options)

    def as_served(self) -> "Pipeline":
        """Return the pipeline with the server's pre-processing instead of the plain one."""
        return replace(self, preprocess=lambda image: preprocess_one(self.family, image))


@dataclass(frozen=True)
class Lap:
    """The work of one thread: its pictures, their total time, and the latency of each in ms."""

    pictures: int
    seconds: float
    latencies_ms: list[float]


class Limit:
    """The models of a repository, run without a server.

    graphs: files to run instead of a model's own, by name: detectors with the same input whose
    graphs return whole rows [batch, n, 5 + classes]. threads: None means one per core.
    """

    def __init__(
        self,
        models: Path,
        pictures: Sequence[bytes],
        graphs: dict[str, Path] | None = None,
        threads: int | None = None,
    ) -> None:
        # The highest version is last and overrides the others.
        self._files = {file.name: file.path for file in scan(models)}
        self._graphs = graphs or {}
        self._pictures = pictures
        self.threads = threads or usable_cores()
        self._pipeline = cache(self._loaded)

    def run(
        self, names: Sequence[str], seconds: float, *, alone: bool = False, as_served: bool = False
    ) -> dict[str, float]:
        """Return pictures per second, the median latency and the CPU time per picture, in ms.

        alone: one picture at a time in a session with one thread per core, instead of one picture
        per core. as_served: with the server's own pre-processing.
        """
        pipelines = self._pipelines(names, alone=alone)
        if as_served:
            pipelines = [pipeline.as_served() for pipeline in pipelines]
        laps: list[Lap] = []
        cpu_s, began = time.process_time(), time.perf_counter()
        threads = [
            threading.Thread(target=lambda at=at: laps.append(self._lap(pipelines, seconds, at)))
            for at in range(1 if alone else self.threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(laps) < len(threads):
            raise ModelFileError("a worker thread failed; see its traceback above")
        cpu_s, took_s = time.process_time() - cpu_s, time.perf_counter() - began
        pictures = sum(lap.pictures for lap in laps)
        return {
            "per_s": sum(lap.pictures / lap.seconds for lap in laps),
            "p50_ms": float(np.median([ms for lap in laps for ms in lap.latencies_ms])),
            "cpu_ms": cpu_s / pictures * 1e3,
            "cores": cpu_s / took_s,
        }

    def answers(self, names: Sequence[str]) -> list[dict[str, list[dict[str, Any]]]]:
        """Return the models' answers for each picture: labels, scores, and boxes xyxy."""
        pipelines = self._pipelines(names, alone=False)
        answers = []
        for picture in self._pictures:
            image = _decoded(picture)
            answers.append({p.name: _plain(p.answer(image)) for p in pipelines})
        return answers

    def _lap(self, pipelines: Sequence[Pipeline], seconds: float, first: int) -> Lap:
        """Process pictures until the time is over; the last one is finished."""
        latencies_ms = []
        began = time.perf_counter()
        # Each thread measures from the start of its first picture to the end of its last one. A
        # common end would not count one unfinished picture per thread.
        for number in itertools.count(first):
            start = time.perf_counter()
            image = _decoded(self._pictures[number % len(self._pictures)])
            for pipeline in pipelines:
                pipeline.answer(image)
            ended = time.perf_counter()
            latencies_ms.append((ended - start) * 1e3)
            if ended - began >= seconds:
                break
        return Lap(len(latencies_ms), ended - began, latencies_ms)

    def _pipelines(self, names: Sequence[str], *, alone: bool) -> list[Pipeline]:
        return [self._pipeline(name, alone=alone) for name in names]

    def _path(self, name: str) -> Path:
        if name not in self._files:
            known = ", ".join(self._files) or "none"
            raise ModelFileError(f"the repository has no model {name!r}; the models are: {known}")
        return self._graphs.get(name, self._files[name])

    def _loaded(self, name: str, *, alone: bool) -> Pipeline:
        path = self._path(name)
        options = ort.SessionOptions()
        # A single request runs best on all cores; with one request per core, each takes one.
        options.intra_op_num_threads = self.threads if alone else 1
        options.inter_op_num_threads = 1
        never_saturate(options)
        options.log_severity_level = 3
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        document = _document(self._files[name])
        if name in self._graphs:
            rows = CandidateRows(layout="yolov5_rows", tensor=session.get_outputs()[0].name)
            document = document.model_copy(update={"output": rows})
        pipeline = Pipeline(
            name,
            session,
            output_names(document),
            _preprocess(document),
            family_of(document),
            Options().of(document.task),
        )
        # The first run allocates memory that later runs reuse.
        pipeline.answer(_decoded(self._pictures[0]))
        return pipeline


def _document(path: Path) -> ModelDocument:
    metadata = read_onnx_file(path).metadata
    if METADATA_KEY not in metadata:
        raise ModelFileError(
            f"{path}: the file has no document; the limit runs only files that visavis exported"
        )
    return parse_document(metadata[METADATA_KEY], str(path))


def _decoded(picture: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ModelFileError("a picture can't be decoded")
    return image


def _preprocess(document: ModelDocument) -> Callable[[Image], tuple[Tensor, Any]]:
    match document.input.resize:
        case ShorterSide(size=size):
            return lambda image: (_shorter_side(image, document, size), None)
        case Letterbox(pad_value=grey):
            return lambda image: _letterboxed(image, document, grey)
        case other:
            raise ModelFileError(
                f"{document.name}: the limit supports the pre-processing of torchvision's ResNet "
                f"and of YOLOv5, not {other.rule}"
            )


def _shorter_side(image: Image, document: ModelDocument, size: int) -> Tensor:
    """Return torchvision's Resize, CenterCrop, ToTensor and Normalize: [1, 3, height, width]."""
    height, width = image.shape[:2]
    short = min(height, width)
    picture = PillowImage.fromarray(image).resize(
        (int(size * width / short), int(size * height / short)), PillowImage.Resampling.BILINEAR
    )
    crop_width, crop_height = document.input.width, document.input.height
    left = round((picture.width - crop_width) / 2)
    top = round((picture.height - crop_height) / 2)
    pixels = np.asarray(picture.crop((left, top, left + crop_width, top + crop_height)))
    tensor = np.empty((1, 3, crop_height, crop_width), np.float32)
    means_and_stds = zip(document.input.mean, document.input.std, strict=True)
    for plane, out, (mean, std) in zip(cv2.split(pixels), tensor[0], means_and_stds, strict=True):
        # (pixel / 255 - mean) / std
        np.multiply(plane, np.float32(1 / 255 / std), out=out)
        np.subtract(out, np.float32(mean / std), out=out)
    return tensor


def _letterboxed(image: Image, document: ModelDocument, grey: int) -> tuple[Tensor, Any]:
    """Return YOLOv5's letterbox, scaled to [0, 1]: [1, 3, height, width], and its geometry."""
    height, width = image.shape[:2]
    place = letterbox(width, height, document.input.width, document.input.height)
    size = (place.content_width, place.content_height)
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    bottom = place.input_height - place.top - size[1]
    right = place.input_width - place.left - size[0]
    border = (place.top, bottom, place.left, right)
    image = cv2.copyMakeBorder(image, *border, cv2.BORDER_CONSTANT, value=(grey, grey, grey))
    tensor = np.empty((1, 3, place.input_height, place.input_width), np.float32)
    for plane, out in zip(cv2.split(image), tensor[0], strict=True):
        np.multiply(plane, np.float32(1 / 255), out=out)
    return tensor, place


def _plain(answer: Classified | Detected) -> list[dict[str, Any]]:
    if isinstance(answer, Classified):
        return [{"label": item.label, "score": item.score} for item in answer.classifications]
    return [
        {
            "label": item.label,
            "score": item.score,
            "box": [item.box.x_min, item.box.y_min, item.box.x_max, item.box.y_max],
        }
        for item in answer.detections
    ]


def _execute(limit: Limit, command: dict[str, Any]) -> dict[str, Any]:
    if "answers" in command:
        return {"answers": limit.answers(command["answers"])}
    return limit.run(
        command["run"],
        command["seconds"],
        alone=command.get("alone", False),
        as_served=command.get("as_served", False),
    )


def _measure(
    pictures: Annotated[list[Path], typer.Argument(help="Encoded pictures, used in turn.")],
    models: Annotated[Path, typer.Option(help="Model repository, a folder.")],
    graph: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Graph to run instead of a detector's: one that returns whole rows.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads.  [one per usable core]")] = None,
) -> None:
    """Measure how fast pictures can be processed without a server; reads commands from stdin."""
    cv2.setNumThreads(1)
    try:
        graphs = {name: Path(file) for name, _, file in (g.partition("=") for g in graph or ())}
        limit = Limit(models, [path.read_bytes() for path in pictures], graphs, threads)
    except (OSError, StartupError) as error:
        _write({"error": str(error)})
        raise typer.Exit(1) from None
    _write({"threads": limit.threads, "pictures": len(pictures), "onnxruntime": ort.__version__})
    for line in sys.stdin:
        try:
            _write(_execute(limit, json.loads(line)))
        except (KeyError, TypeError, ValueError, StartupError) as error:
            _write({"error": str(error)})


def _write(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    typer.run(_measure)
