"""Asks every model about every picture."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from visavis.async_client import AsyncClient
from visavis.cards import Model
from visavis.client import Client
from visavis.errors import InvalidRequest, Overloaded, Unavailable, VisavisError
from visavis.evaluation.answers import AnswersFile, ModelRun, PictureAnswers, box_rows
from visavis.evaluation.matching import MAX_DETECTIONS
from visavis.evaluation.pace import Pace
from visavis.images import file_bytes
from visavis.peers import AsyncPeeredClient, Peer
from visavis.results import Comparison, ModelAnswer, Timings
from visavis.target import parse_target

# Low enough for the whole curve of precision.
_LEAST_SCORE: Final = 0.001
_TOP_K: Final = 5
# Of each model; decoding comes before them.
_STAGES: Final = ("preprocess_ms", "inference_ms", "postprocess_ms")
# A server that has too much to do says when to come again; else so many seconds, then more.
_PAUSE_S: Final = 0.25
_MOST_PAUSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Source:
    """Where answers come from.

    callers: pictures at once, at most. patience_s: for how long a picture may be refused because
    the server has too much to do. peers: servers that are asked too.
    """

    server: str
    timeout_s: float
    callers: int = 32
    patience_s: float = 120.0
    peers: tuple[Peer, ...] = ()

    def client(self, models: Sequence[Model]) -> AsyncClient:
        """Return a client of all servers; models: those that are compared."""
        target = parse_target(self.server)
        if not self.peers:
            return target.async_client(self.timeout_s)
        return AsyncPeeredClient(
            target.address,
            self.peers,
            models,
            timeout=self.timeout_s,
            tls=target.tls,
            token=target.token,
        )


_Answered = tuple[str, PictureAnswers] | VisavisError | None


async def collect(
    source: Source, models: Sequence[Model], pictures: Mapping[str, Path], kept: AnswersFile
) -> AsyncIterator[PictureAnswers | None]:
    """Ask every model about every picture that has no answer yet; yield each as it comes.

    pictures: files by the path that they are called in results. None: a picture that was answered
    before. Every picture is sent once, and the server shares it among the models. Raises
    VisavisError if the server cannot be reached, or has too much to do for too long; a picture
    that is refused is an answer too.
    """
    names = [model.name for model in models]
    waiting = iter(pictures.items())
    done: asyncio.Queue[_Answered] = asyncio.Queue(source.callers)
    pace = Pace(source.callers)

    async def caller(client: AsyncClient) -> None:
        for path, file in waiting:
            # The file is read in turn, so that no more pictures are held than are under way.
            async with pace:
                answered = await _one(client, path, file)
            await done.put(answered)
            if isinstance(answered, VisavisError):
                return

    async def _one(client: AsyncClient, path: str, file: Path) -> _Answered:
        try:
            encoded = await asyncio.to_thread(file_bytes, file)
        except (OSError, InvalidRequest) as error:
            return "", PictureAnswers(path, 0, 0, {}, f"cannot be read: {error}")
        try:
            digest = hashlib.sha256(encoded).hexdigest()
            if (path, digest) in kept.digests:
                return None
            return digest, await _answered(client, path, encoded, names, pace, source.patience_s)
        except VisavisError as error:
            return error

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
    client: AsyncClient,
    path: str,
    encoded: bytes,
    names: Sequence[str],
    pace: Pace,
    patience_s: float,
) -> PictureAnswers:
    now, pause_s = asyncio.get_running_loop().time, _PAUSE_S
    give_up_at = now() + patience_s
    while True:
        retry_after_s = None
        try:
            comparison = await client.compare(
                encoded,
                models=names,
                top_k=_TOP_K,
                score_threshold=_LEAST_SCORE,
                max_detections=MAX_DETECTIONS,
            )
            busy = [a for a in _each(comparison) if a.status.code == "RESOURCE_EXHAUSTED"]
            if not busy:
                pace.answered(*_waited(comparison))
                return _picture_answers(path, comparison)
            refusal = busy[0].status.message
        except InvalidRequest as error:
            return PictureAnswers(path, 0, 0, {}, error.message)
        except (Overloaded, Unavailable) as error:
            if isinstance(error, Unavailable) and error.request_id is None:
                raise
            refusal, retry_after_s = error.message, error.retry_after_s
        pace.refused()
        # A little later than it says, and not all at once.
        wait_s = (retry_after_s or pause_s) * random.uniform(1.0, 1.25)
        if now() + wait_s > give_up_at:
            raise Overloaded(f"the server had too much to do for {patience_s:g} s: {refusal}")
        await asyncio.sleep(wait_s)
        pause_s = min(2 * pause_s, _MOST_PAUSE_S)


def _waited(comparison: Comparison) -> tuple[float, float]:
    """Return how long the slowest model's answer waited and worked, in milliseconds."""
    timings = [answer.timings for answer in _each(comparison) if answer.timings]
    waited = max((one.queue_ms for one in timings), default=0.0)
    worked = max((one.inference_ms + one.preprocess_ms for one in timings), default=0.0)
    return waited, worked


def _each(comparison: Comparison) -> Iterator[ModelAnswer]:
    for task in comparison.comparisons:
        yield from task.answers


def _picture_answers(path: str, comparison: Comparison) -> PictureAnswers:
    size = comparison.image_size
    # A server decodes a picture once for all its models; a peer tells its own time.
    decode_ms = comparison.timings.decode_ms
    runs = {answer.served_by.model: _run(answer, decode_ms) for answer in _each(comparison)}
    return PictureAnswers(path, size.width, size.height, runs)


def _run(answer: ModelAnswer, decode_ms: float) -> ModelRun:
    if not answer.status.ok:
        return ModelRun(failure=f"{answer.status.code}: {answer.status.message}")
    return ModelRun(
        tuple(one.class_id for one in answer.classifications),
        box_rows([(*one.box.xyxy, one.class_id, one.score) for one in answer.detections]),
        _stages(answer.timings, decode_ms),
    )


def _stages(timings: Timings | None, decode_ms: float) -> dict[str, float]:
    if timings is None:
        return {}
    own = {name: getattr(timings, name) for name in _STAGES}
    return {"decode_ms": timings.decode_ms or decode_ms} | own
