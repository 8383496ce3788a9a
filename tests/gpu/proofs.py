"""What must hold on a device. Each proof returns what it saw, in words, or raises Failed."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime as ort

from visavis_server.arrays import Tensor
from visavis_server.errors import CannotLoadNow, Overloaded
from visavis_server.models.engine import Engine
from visavis_server.models.model_files import ModelFile
from visavis_server.models.served_model import ServedModel
from visavis_server.runtime import providers
from visavis_server.runtime.buffers import Buffers
from visavis_server.runtime.fixed_batches import sizes
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.runtime.scheduling.work import Caller
from visavis_server.runtime.session import Session
from visavis_server.vision.results import Detected, DetectOptions, Options

from .site import Site, gathered, picture, scratch

_BATCH = 16
# Of the largest magnitude, as for golden samples.
_RELATIVE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 5e-2}
# Of a score, and of a box in pixels: those of the receipts.
_SCORE = {"fp32": 1e-3, "fp16": 5e-3, "int8": 0.05}
_BOX = {"fp32": 0.5, "fp16": 2.0, "int8": 8.0}
_LEAST_SHARE = 0.9
_MOST_GROWTH = 32 << 20
_PILE_UP_S = 1.0
_CALLER = Caller("proof")
_THRESHOLD = 0.25
_OPTIONS = Options(detect=DetectOptions(score_threshold=_THRESHOLD))


class Failed(Exception):
    """A proof failed; the text says what was seen."""


def require(holds: bool, seen: str) -> None:
    """Raise Failed unless something holds."""
    if not holds:
        raise Failed(seen)


def _config(site: Site, cache_dir: Path, **changes: Any) -> SessionConfig:
    return replace(SessionConfig(cache_dir, batch=_BATCH, runs=2, gpu=site.planner.gpu), **changes)


def provider_truth(site: Site, file: ModelFile) -> str:
    """The session's nodes really run on the device: ONNX Runtime's profile names the provider."""
    real = providers._options

    def profiled(*arguments: Any) -> ort.SessionOptions:
        options = real(*arguments)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        return options

    model = site.loaded(file)
    with scratch() as folder, patch.object(providers, "_options", profiled):
        session = Session(file.path, site.provider, _config(site, folder))
        session.run(site.inputs(model, 2))
        events = json.loads(Path(session._session.end_profiling()).read_text("utf-8"))
    ran = Counter[str]()
    elsewhere = Counter[str]()
    for event in events:
        details = event.get("args", {})
        if event.get("cat") == "Node" and "provider" in details:
            ran[details["provider"]] += 1
            if details["provider"] != site.provider.name:
                elsewhere[details.get("op_name", event["name"])] += 1
    seen = ", ".join(f"{count} on {name}" for name, count in ran.most_common())
    if elsewhere:
        seen += f"; elsewhere: {', '.join(f'{op} ×{n}' for op, n in elsewhere.most_common(8))}"
    # TensorRT leaves to CUDA what it does not support.
    on_device = ran.total() - (ran[CPU.name] if site.is_gpu else 0)
    require(ran[site.provider.name] > 0, f"nodes run: {seen or 'none'}")
    require(on_device >= _LEAST_SHARE * ran.total(), f"nodes run: {seen}")
    return f"nodes run: {seen}"


def answers(site: Site, file: ModelFile) -> str:
    """The answers for the pictures are the CPU's, within the receipts' tolerance."""
    model, cpu = site.loaded(file), site.on_cpu(file)
    score, box = _SCORE[model.document.precision], _BOX[model.document.precision]
    most_score = most_px = 0.0
    for data in site.encoded:
        one, other = (
            asyncio.run(each.answer(picture(data), _OPTIONS, _CALLER)).result
            for each in (model, cpu)
        )
        if isinstance(one, Detected):
            for found, among in ((one, other), (other, one)):
                by, px = _detections_apart(found, among, score)
                most_score, most_px = max(most_score, by), max(most_px, px)
        else:
            most_score = max(most_score, _labels_apart(one, other, score))
    seen = f"{len(site.encoded)} pictures: scores within {most_score:.2g}"
    seen += f", boxes within {most_px:.2g} px" if most_px else ""
    require(most_score <= score and most_px <= box, seen)
    return seen


def _labels_apart(one: Any, other: Any, tolerance: float) -> float:
    scores = {each.label: each.score for each in other.classifications}
    first = one.classifications[0]
    best = other.classifications[0]
    if first.label != best.label and abs(first.score - best.score) > tolerance:
        raise Failed(f"{first.label} {first.score:.4f} instead of {best.label} {best.score:.4f}")
    return max(abs(each.score - scores.get(each.label, each.score)) for each in one.classifications)


def _detections_apart(found: Any, among: Any, tolerance: float) -> tuple[float, float]:
    """Return by how much the found scores and boxes differ from the nearest among others."""
    score = px = 0.0
    least = _THRESHOLD + tolerance
    for each in found.detections:
        if each.score < least:
            continue
        near = [
            (max(abs(a - b) for a, b in zip(_corners(each), _corners(o), strict=True)), o.score)
            for o in among.detections
            if o.label == each.label
        ]
        if not near:
            raise Failed(f"only one of both found a {each.label} of score {each.score:.3f}")
        apart, its_score = min(near)
        score, px = max(score, abs(each.score - its_score)), max(px, apart)
    return score, px


def _corners(detection: Any) -> tuple[float, ...]:
    box = detection.box
    return box.x_min, box.y_min, box.x_max, box.y_max


def batches(site: Site, file: ModelFile) -> str:
    """Every size of batches gives what single images give, and callers share runs."""
    model = site.loaded(file)
    sessions, names = model.engine.sessions, model.engine._output_names
    inputs = site.inputs(model, _BATCH)
    singles = [sessions.run(inputs[i : i + 1], names) for i in range(_BATCH)]
    worst = 0.0
    for count in range(1, _BATCH + 1):
        together = sessions.run(inputs[:count], names)
        for at, output in enumerate(together):
            require(len(output) == count, f"{len(output)} outputs for {count} images")
            alone = np.concatenate([singles[i][at] for i in range(count)]).astype(np.float32)
            apart = np.abs(output.astype(np.float32) - alone).max() / max(np.abs(alone).max(), 1e-6)
            worst = max(worst, float(apart))
    require(worst <= _RELATIVE[model.document.precision], f"outputs differ by {worst:.2g}")
    done = asyncio.run(gathered(96, lambda i: model.answer(_turn(site, i), Options(), _CALLER)))
    errors = [each for each in done if isinstance(each, BaseException)]
    require(not errors, f"{len(errors)} of 96 calls failed: {errors[:1]}")
    ran = model._scheduler.statistics()[model.engine].batches
    require(max(ran) > 1, f"no call shared a run: {dict(ran)}")
    return f"1 to {_BATCH} images within {worst:.2g}; 96 callers in runs of {sorted(ran)}"


def _turn(site: Site, number: int) -> Any:
    return picture(site.encoded[number % len(site.encoded)])


def streams(site: Site, file: ModelFile) -> str:
    """Two streams are in flight at once, and together are no slower than one."""
    model = site.loaded(file)
    inputs = site.inputs(model, 8)

    def rate(threads: int) -> tuple[float, float]:
        spans: list[tuple[float, float]] = []
        end = time.perf_counter() + site.seconds

        def run() -> None:
            while time.perf_counter() < end:
                began = time.perf_counter()
                model.engine.sessions.run(inputs, model.engine._output_names)
                spans.append((began, time.perf_counter()))

        _together([run] * threads)
        took = max(b for _, b in spans) - min(a for a, _ in spans)
        return len(inputs) * len(spans) / took, sum(b - a for a, b in spans) / took

    (one, _), (two, busy) = rate(1), rate(2)
    seen = f"{busy:.2f} runs in flight with two streams; {two:.0f} images/s, {one:.0f} with one"
    require(busy > 1.2, seen)
    require(two > 0.9 * one, seen)
    return seen


def _together(work: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def memory(site: Site, file: ModelFile) -> str:
    """Memory does not grow with runs, whatever their sizes."""
    model = site.loaded(file)
    inputs, names = site.inputs(model, _BATCH), model.engine._output_names

    def runs(number: int) -> None:
        for i in range(number):
            model.engine.sessions.run(inputs[: 1 + i % _BATCH], names)

    began = time.perf_counter()
    _together([lambda: runs(32)] * 2)
    each_s = (time.perf_counter() - began) / 64
    before = site.used_bytes()
    number = int(min(2000, max(64, site.seconds / each_s)))
    _together([lambda: runs(number // 2)] * 2)
    growth = site.used_bytes() - before
    seen = f"{growth / 2**20:+.1f} MiB after {number} runs; {before >> 20} MiB in use"
    require(growth <= _MOST_GROWTH, seen)
    return seen


def out_of_memory(site: Site, file: ModelFile) -> str:
    """Runs that exceed the session's memory are refused, with a retry time; others succeed."""
    model = site.loaded(file)
    inputs, names = site.inputs(model, _BATCH), model.engine._output_names
    with _short(site), scratch() as folder:
        session, limit = _limited(site, file, inputs, names, folder)
        (before, *_) = session.run(inputs[:1], names)
        sessions = model.engine.sessions
        only = _Only(session)
        plan = replace(model.plan, batch=_BATCH)
        engine = Engine(model.document, only, plan, Buffers(2))  # type: ignore[arg-type]
        scheduler = Scheduler(site.planner.cores, 512, site.planner.streams)
        done = asyncio.run(
            gathered(48, lambda i: scheduler.submit(engine, _job(site, i, model), _CALLER))
        )
        scheduler.close()
        (after, *_) = session.run(inputs[:1], names)
    refused = [each for each in done if isinstance(each, Overloaded)]
    failed = [e for e in done if isinstance(e, BaseException) and not isinstance(e, Overloaded)]
    require(not failed, f"{len(failed)} calls failed otherwise: {failed[:1]}")
    require(max(only.sizes) > 1, "no batch was run")
    require(all(each.retry_after_s > 0 for each in refused), "a refusal has no retry time")
    (other, *_) = sessions.run(inputs[:1], names)
    apart = np.abs(after.astype(np.float32) - before.astype(np.float32)).max()
    scale = max(np.abs(other.astype(np.float32)).max(), 1e-6)
    require(float(apart / scale) <= 1e-3, "the answers changed afterwards")
    good = len(done) - len(refused)
    runs = f"{len(only.sizes)} runs of up to {max(only.sizes)} images"
    return f"limit {limit}; {runs}: {good} of 48 answered, {len(refused)} refused"


def _job(site: Site, number: int, model: ServedModel) -> Any:
    from visavis_server.models.engine import PictureJob

    return PictureJob(picture=_turn(site, number), options=Options().of(model.task))


class _Only:
    """One session, in the place of a model's sessions. Its first runs wait for more work."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.sizes: list[int] = []

    def run(self, images: Any, names: list[str], exclusive: bool, stop: Any) -> list[Tensor]:
        if not self.sizes:
            time.sleep(_PILE_UP_S)
        self.sizes.append(len(images))
        return self._session.run(images, names, stop=stop)


def _limited(
    site: Site, file: ModelFile, inputs: Tensor, names: list[str], folder: Path
) -> tuple[Session, str]:
    """Return a session that has the memory for one image and not for a whole batch."""
    limit = 64 << 20
    while limit < 64 << 30:
        try:
            session = Session(file.path, site.provider, _config(site, folder, gpu_bytes=limit))
            session.run(inputs[:1], names)
        except (Overloaded, CannotLoadNow):
            limit = int(limit * 1.25)
            continue
        try:
            session.run(inputs, names)
        except Overloaded:
            return session, f"{limit >> 20} MiB" if site.is_gpu else "4 images (simulated)"
        raise Failed(f"{limit >> 20} MiB suffice for 1 image and for {len(inputs)}")
    raise Failed("no limit suffices for one image")


@contextmanager
def _short(site: Site) -> Iterator[None]:
    """Let runs of more than 4 images fail with CUDA's words, where there is no GPU."""
    if site.is_gpu:
        with nullcontext():
            yield
        return
    run = ort.InferenceSession.run_with_iobinding

    def short(session: Any, binding: Any, options: Any = None) -> None:
        (bound,) = binding._bound_inputs.values()
        if bound.shape()[0] > sizes(4)[-1]:
            raise RuntimeError("Available memory of 1 is smaller than requested bytes of 2")
        run(session, binding, options)

    with patch.object(ort.InferenceSession, "run_with_iobinding", short):
        yield


PROOFS = (provider_truth, answers, batches, streams, memory, out_of_memory)
