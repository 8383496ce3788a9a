"""Every model's answers on every picture, kept in a file from which a run can go on."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from visavis.async_client import AsyncClient
from visavis.cards import Model
from visavis.client import Client
from visavis.errors import InvalidData, InvalidRequest, Overloaded, Unavailable, VisavisError
from visavis.evaluation.accuracy import MAX_DETECTIONS
from visavis.peers import AsyncPeeredClient, Peer
from visavis.results import Comparison, ModelAnswer, Timings

# Low enough for the whole curve of precision.
_LEAST_SCORE: Final = 0.001
_TOP_K: Final = 5
_FORMAT: Final = 1
# A server that has too much to do says when to come again; else so many seconds.
_PAUSE_S: Final = 0.5
Rows = npt.NDArray[np.float32]
"""Boxes [n, 6]: x_min, y_min, x_max, y_max in pixels, class id, score."""

_STAGES: Final = ("decode_ms", "preprocess_ms", "inference_ms", "postprocess_ms")


@dataclass(frozen=True, slots=True)
class ModelRun:
    """One model on one picture.

    classes: class ids, best first, of a classifier. boxes: of a detector. failure: why there is
    neither. stages_ms: the time of each stage in milliseconds.
    """

    classes: tuple[int, ...] = ()
    boxes: Rows = field(default_factory=lambda: _rows(()))
    stages_ms: Mapping[str, float] | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class PictureAnswers:
    """One picture: its size in pixels and each model's answer, by name; or why there are none."""

    path: str
    width: int
    height: int
    runs: Mapping[str, ModelRun]
    failure: str = ""


class AnswersFile:
    """Lines of JSON, one for each picture that was answered, below one that says by which models.

    Raises InvalidData for a file of other models: their answers must not be mixed.
    """

    def __init__(self, path: Path, models: Sequence[Model]) -> None:
        self._path = path
        self._heading = {"format": _FORMAT, "models": [_identity(model) for model in models]}
        self.digests: set[tuple[str, str]] = set()
        if path.exists():
            self._check()
            self.digests = {(line["path"], line["sha256"]) for line in self._lines()}
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self._heading) + "\n", encoding="utf-8")

    def append(self, file: IO[str], sha256: str, answers: PictureAnswers) -> None:
        """Add a picture; an interruption loses at most the line that is being written."""
        runs = {name: _run_fields(run) for name, run in answers.runs.items()}
        line = {
            "path": answers.path,
            "sha256": sha256,
            "size": [answers.width, answers.height],
            "failure": answers.failure,
            "runs": runs,
        }
        file.write(json.dumps(line, separators=(",", ":")) + "\n")
        file.flush()

    def open(self) -> IO[str]:
        """Return the file to append to, without a last line that was cut off."""
        whole = self._path.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        if len(kept) < len(whole):
            self._path.write_bytes(kept)
        return self._path.open("a", encoding="utf-8")

    def read(self, wanted: set[str]) -> Iterator[PictureAnswers]:
        """Yield the pictures of these paths; of one that was answered twice, the last answer."""
        last: dict[str, dict[str, Any]] = {}
        for line in self._lines():
            if line["path"] in wanted:
                last[line["path"]] = line
        for path in sorted(last):
            line = last[path]
            runs = {name: _read_run(fields) for name, fields in line["runs"].items()}
            width, height = line["size"]
            yield PictureAnswers(path, width, height, runs, line["failure"])

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self._path.open(encoding="utf-8") as file:
            next(file, None)
            for text in file:
                try:
                    yield json.loads(text)
                except ValueError:
                    if text.endswith("\n"):
                        raise InvalidData(f"{self._path} holds a line that is not JSON") from None

    def _check(self) -> None:
        try:
            with self._path.open(encoding="utf-8") as file:
                heading = json.loads(file.readline())
        except (OSError, ValueError) as error:
            raise InvalidData(f"{self._path} cannot be continued: {error}") from None
        if heading != self._heading:
            raise InvalidData(
                f"{self._path} holds the answers of other models; name another file with "
                "--answers, or delete it"
            )


@dataclass(frozen=True, slots=True)
class Source:
    """Where answers come from. callers: requests at once. peers: servers that are asked too."""

    server: str
    timeout_s: float
    callers: int = 8
    peers: tuple[Peer, ...] = ()

    def client(self, models: Sequence[Model]) -> AsyncClient:
        """Return a client of all servers; models: those that are compared."""
        if self.peers:
            return AsyncPeeredClient(self.server, self.peers, models, timeout=self.timeout_s)
        return AsyncClient(self.server, timeout=self.timeout_s)


async def collect(
    source: Source, models: Sequence[Model], pictures: Mapping[str, Path], kept: AnswersFile
) -> AsyncIterator[PictureAnswers | None]:
    """Ask every model about every picture that has no answer yet; yield each as it comes.

    pictures: files by the path that they are called in results. None: a picture that was answered
    before. Every picture is sent once, and the server shares it among the models. Raises
    VisavisError if the server cannot be reached; a picture that is refused is an answer too.
    """
    names = [model.name for model in models]
    waiting = iter(pictures.items())
    done: asyncio.Queue[tuple[str, PictureAnswers] | VisavisError | None] = asyncio.Queue(
        source.callers
    )

    async def caller(client: AsyncClient) -> None:
        for path, file in waiting:
            try:
                encoded = await asyncio.to_thread(file.read_bytes)
                digest = hashlib.sha256(encoded).hexdigest()
                if (path, digest) in kept.digests:
                    await done.put(None)
                    continue
                answers = await _answered(client, path, encoded, names)
            except OSError as error:
                digest, answers = "", PictureAnswers(path, 0, 0, {}, f"cannot be read: {error}")
            except VisavisError as error:
                await done.put(error)
                return
            await done.put((digest, answers))

    async with source.client(models) as client:
        callers = [asyncio.create_task(caller(client)) for _ in range(source.callers)]
        try:
            with kept.open() as file:
                for _ in pictures:
                    one = await done.get()
                    if isinstance(one, VisavisError):
                        raise one
                    if one is not None:
                        kept.append(file, *one)
                        yield one[1]
                    else:
                        yield None
        finally:
            for task in callers:
                task.cancel()
            await asyncio.gather(*callers, return_exceptions=True)


def compared_models(client: Client, names: Sequence[str], tasks: Sequence[str]) -> list[Model]:
    """Return the cards of the models to compare, with their labels, in the order of names.

    Raises InvalidRequest for a name or a task that no model has.
    """
    cards = {model.name: model for model in client.list_models()}
    if unknown := [name for name in names if name not in cards]:
        raise InvalidRequest(f"the server has no model {unknown[0]!r}; it has {', '.join(cards)}")
    wanted = [cards[name] for name in dict.fromkeys(names)] or list(cards.values())
    chosen = [model for model in wanted if not tasks or {*model.tasks} & {*tasks}]
    if not chosen:
        raise InvalidRequest(f"no model can do {', '.join(tasks)}")
    return [client.get_model(model.name, version=model.version) for model in chosen]


async def _answered(
    client: AsyncClient, path: str, encoded: bytes, names: Sequence[str]
) -> PictureAnswers:
    while True:
        try:
            comparison = await client.compare(
                encoded,
                models=names,
                top_k=_TOP_K,
                score_threshold=_LEAST_SCORE,
                max_detections=MAX_DETECTIONS,
            )
        except InvalidRequest as error:
            return PictureAnswers(path, 0, 0, {}, error.message)
        except (Overloaded, Unavailable) as error:
            if isinstance(error, Unavailable) and error.request_id is None:
                raise
            await asyncio.sleep(error.retry_after_s or _PAUSE_S)
            continue
        busy = [a for a in _each(comparison) if a.status.code == "RESOURCE_EXHAUSTED"]
        if not busy:
            return _picture_answers(path, comparison)
        await asyncio.sleep(_PAUSE_S)


def _each(comparison: Comparison) -> Iterator[ModelAnswer]:
    for task in comparison.comparisons:
        yield from task.answers


def _picture_answers(path: str, comparison: Comparison) -> PictureAnswers:
    size = comparison.image_size
    runs = {answer.served_by.model: _run(answer) for answer in _each(comparison)}
    return PictureAnswers(path, size.width, size.height, runs)


def _run(answer: ModelAnswer) -> ModelRun:
    if not answer.status.ok:
        return ModelRun(failure=f"{answer.status.code}: {answer.status.message}")
    return ModelRun(
        tuple(one.class_id for one in answer.classifications),
        _rows([(*one.box.xyxy, one.class_id, one.score) for one in answer.detections]),
        _stages(answer.timings),
    )


def _rows(boxes: Sequence[Sequence[float]]) -> Rows:
    return np.array(boxes, np.float32).reshape(-1, 6)


def _stages(timings: Timings | None) -> dict[str, float]:
    return {name: getattr(timings, name) for name in _STAGES} if timings else {}


def _run_fields(run: ModelRun) -> dict[str, Any]:
    # A hundredth of a pixel and a millionth of a score: exact enough, and a third of the size.
    boxes = [
        [*(round(x, 2) for x in row[:4]), int(row[4]), round(row[5], 6)]
        for row in run.boxes.tolist()
    ]
    stages = {name: round(ms, 3) for name, ms in (run.stages_ms or {}).items()}
    fields = {"classes": run.classes, "boxes": boxes, "ms": stages, "failure": run.failure}
    return {name: value for name, value in fields.items() if value}


def _read_run(fields: Mapping[str, Any]) -> ModelRun:
    return ModelRun(
        tuple(fields.get("classes", ())),
        _rows(fields.get("boxes", ())),
        fields.get("ms"),
        fields.get("failure", ""),
    )


def _identity(model: Model) -> dict[str, Any]:
    """Return what tells a model from another of its name."""
    return {
        "model": model.name,
        "version": model.version,
        "precision": model.precision,
        "provider": model.execution_provider,
        "tasks": [task.value for task in model.tasks],
        "labels": hashlib.sha256("\n".join(model.label_set.labels).encode()).hexdigest(),
        "weights": model.provenance.weights_sha256,
        "exported_at": model.provenance.exported_at,
    }
