"""Fan-out of one image to many models, and how far their answers agree.

Works over anything that has a card and answers: a model in this process, on another
server, in a cluster. Knows no gRPC.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import structlog

from visavis_server.arrays import Tensor
from visavis_server.card import LabelSet, ModelDocument, Task
from visavis_server.errors import InvalidRequest, ModelFailed, VisavisError, drop_traceback, listed
from visavis_server.runtime.scheduling.work import Caller
from visavis_server.vision import boxes
from visavis_server.vision.labels import KNOWN_LABEL_SETS
from visavis_server.vision.results import (
    Answer,
    Classified,
    Detected,
    Detection,
    Options,
    Picture,
    ServedBy,
)

MATCH_IOU = 0.5
_PAIRS_AT_ONCE = 4096

_log = structlog.get_logger()


class Comparable(Protocol):
    """A model that can be compared."""

    @property
    def name(self) -> str:
        """Its name in the repository."""
        ...

    @property
    def task(self) -> Task:
        """What it is capable of."""
        ...

    @property
    def document(self) -> ModelDocument:
        """Its document: labels and card."""
        ...

    @property
    def served_by(self) -> ServedBy:
        """What its answers say of where they come from."""
        ...

    async def answer(self, picture: Picture, options: Options, caller: Caller) -> Answer:
        """Return the model's answer, or raise VisavisError."""
        ...


@dataclass(frozen=True, slots=True)
class ClassificationAgreement:
    """How far two classifiers agree; the divergence is None where label sets differ."""

    same_top1: bool
    top_k_overlap: float
    jensen_shannon_divergence: float | None


@dataclass(frozen=True, slots=True)
class Match:
    """Two detections that match, by their index in each answer."""

    index: int
    baseline_index: int
    iou: float


@dataclass(frozen=True, slots=True)
class DetectionAgreement:
    """How far two detectors agree; the means are None without matches."""

    matches: tuple[Match, ...]
    only_here: int
    only_in_baseline: int
    mean_iou: float | None
    mean_score_difference: float | None
    f1: float


Agreement = ClassificationAgreement | DetectionAgreement


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One model's answer, or the error that it gave instead."""

    model: Comparable
    outcome: Answer | VisavisError
    agreement: Agreement | None = None


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """All answers for one task."""

    task: Task
    baseline: str
    answers: tuple[ModelAnswer, ...]

    @property
    def nothing_to_compare(self) -> str:
        """Why there is nothing to compare; empty where there is."""
        if len(self.answers) > 1:
            return ""
        return f"nothing to compare with: {self.baseline} is the only model asked for {self.task}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Whom a comparison asks, per task, with the baseline; and whom it leaves out, and why."""

    by_task: dict[Task, list[Comparable]]
    baselines: dict[Task, str]
    left_out: dict[str, str]

    @property
    def models(self) -> list[Comparable]:
        """All models that are asked, by task."""
        return [model for models in self.by_task.values() for model in models]


def select(
    available: Sequence[Comparable],
    tasks: Sequence[Task],
    names: Sequence[str],
    baseline: str | None,
) -> Selection:
    """Return whom to ask: the named models, else all; for the given tasks, else all.

    available: every model, by name, those in `names` among them. Raises InvalidRequest if
    the baseline is not among those who are asked, or if nobody is.
    """
    wanted = list(dict.fromkeys(tasks)) or list(Task)
    order = {name: index for index, name in enumerate(dict.fromkeys(names))}
    left_out: dict[str, str] = {}
    by_task: dict[Task, list[Comparable]] = {task: [] for task in Task if task in wanted}
    for model in sorted(available, key=lambda m: (order.get(m.name, len(order)), m.name)):
        if names and model.name not in order:
            left_out[model.name] = "not among the models of the request"
        elif model.task not in wanted:
            left_out[model.name] = f"capable of {model.task} only, which was not asked for"
        else:
            by_task[model.task].append(model)
    by_task = {task: models for task, models in by_task.items() if models}
    if not by_task:
        task_names = ", ".join(wanted)
        if not names:
            raise InvalidRequest("tasks", f"no model is capable of {task_names}")
        capable = listed(model.name for model in available if model.task in wanted)
        raise InvalidRequest(
            "models",
            f"none of {listed(order)} is capable of {task_names}; capable are: {capable}",
        )
    asked = {model.name for models in by_task.values() for model in models}
    if baseline is not None and baseline not in asked:
        raise InvalidRequest(
            "baseline",
            f"baseline {baseline[:128]!r} is not among the models compared: {listed(asked)}",
        )
    baselines = {
        task: baseline if any(m.name == baseline for m in models) and baseline else models[0].name
        for task, models in by_task.items()
    }
    return Selection(by_task, baselines, dict(sorted(left_out.items())))


async def answers(
    selection: Selection, picture: Picture, options: Options, caller: Caller
) -> AsyncGenerator[ModelAnswer, None]:
    """Yield each model's answer, or its error, as soon as it is there.

    To close it early cancels what is still waiting.
    """

    async def ask(model: Comparable) -> ModelAnswer:
        try:
            return ModelAnswer(model, await model.answer(picture, options, caller))
        except VisavisError as error:
            drop_traceback(error)
            return ModelAnswer(model, error)
        except Exception as error:  # noqa: BLE001  whatever one does, the others' answers stand
            _log.exception("model failed in a comparison", model=model.name)
            drop_traceback(error)
            return ModelAnswer(model, ModelFailed("internal error; the server's log says more"))

    tasks = [asyncio.create_task(ask(model)) for model in selection.models]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def conclude(selection: Selection, given: Sequence[ModelAnswer]) -> list[TaskComparison]:
    """Return the answers in order, each with its agreement with the baseline."""
    by_name = {answer.model.name: answer for answer in given}
    comparisons = []
    for task, models in selection.by_task.items():
        baseline = by_name[selection.baselines[task]]
        compared = tuple(
            by_name[model.name]
            if model.name == baseline.model.name
            else _with_agreement(by_name[model.name], baseline)
            for model in models
        )
        comparisons.append(TaskComparison(task, baseline.model.name, compared))
    return comparisons


def _with_agreement(answer: ModelAnswer, baseline: ModelAnswer) -> ModelAnswer:
    if isinstance(answer.outcome, VisavisError) or isinstance(baseline.outcome, VisavisError):
        return answer
    here, there = answer.outcome.result, baseline.outcome.result
    labels, baseline_labels = (
        answer.model.document.label_set,
        baseline.model.document.label_set,
    )
    agreement: Agreement
    if isinstance(here, Classified) and isinstance(there, Classified):
        agreement = classification_agreement(here, there, _share(labels, baseline_labels))
    else:
        assert isinstance(here, Detected)
        assert isinstance(there, Detected)
        agreement = detection_agreement(here, there, _share(labels, baseline_labels))
    return ModelAnswer(answer.model, answer.outcome, agreement)


def _share(one: LabelSet, other: LabelSet) -> bool:
    """Say whether class ids mean the same; tables of a known set may spell its labels apart."""
    if one.name != other.name or len(one.labels) != len(other.labels):
        return False
    return one.labels == other.labels or one.name in KNOWN_LABEL_SETS


def classification_agreement(
    here: Classified, baseline: Classified, same_label_set: bool
) -> ClassificationAgreement:
    """Return how far two classifiers agree, by class id in one label set, by name otherwise."""

    def keys(answer: Classified) -> list[int | str]:
        return [c.class_id if same_label_set else c.label for c in answer.classifications]

    ours, theirs = keys(here), keys(baseline)
    return ClassificationAgreement(
        same_top1=ours[0] == theirs[0],
        top_k_overlap=len(set(ours) & set(theirs)) / max(len(ours), len(theirs)),
        jensen_shannon_divergence=(
            jensen_shannon_divergence(here.probabilities, baseline.probabilities)
            if same_label_set
            else None
        ),
    )


def jensen_shannon_divergence(one: Tensor, other: Tensor) -> float:
    """Return the divergence, base 2, of two distributions [n]: 0 identical, 1 disjoint."""
    p, q = one.astype(np.float64), other.astype(np.float64)
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2

    def relative_entropy(distribution: npt.NDArray[np.float64]) -> float:
        some = distribution > 0
        return float(np.sum(distribution[some] * np.log2(distribution[some] / middle[some])))

    return min(max((relative_entropy(p) + relative_entropy(q)) / 2, 0.0), 1.0)


def detection_agreement(
    here: Detected, baseline: Detected, same_label_set: bool
) -> DetectionAgreement:
    """Return how far two detectors agree: pairs of one label, the highest IoU first.

    Each detection is in one pair at most, and the order of the two makes no difference.
    """
    ours, theirs = here.detections, baseline.detections
    overlap = boxes.iou(_corners(ours), _corners(theirs))
    overlap[_keys(ours, same_label_set)[:, None] != _keys(theirs, same_label_set)[None, :]] = 0
    matches: list[Match] = []
    taken: set[int] = set()
    baseline_taken: set[int] = set()
    for i, j in _best_first(overlap):
        if i not in taken and j not in baseline_taken:
            matches.append(Match(i, j, float(overlap[i, j])))
            taken.add(i)
            baseline_taken.add(j)
            if len(matches) == min(len(ours), len(theirs)):
                break
    differences = [abs(ours[m.index].score - theirs[m.baseline_index].score) for m in matches]
    total = len(ours) + len(theirs)
    return DetectionAgreement(
        matches=tuple(matches),
        only_here=len(ours) - len(matches),
        only_in_baseline=len(theirs) - len(matches),
        mean_iou=_mean([m.iou for m in matches]),
        mean_score_difference=_mean(differences),
        f1=2 * len(matches) / total if total else 1.0,
    )


def _best_first(overlap: Tensor) -> Iterator[tuple[int, int]]:
    """Yield the pairs [n, m] that overlap enough to match, the highest IoU first."""
    pairs = np.argwhere(overlap >= MATCH_IOU)
    order = np.argsort(-overlap[pairs[:, 0], pairs[:, 1]], kind="stable")
    # Two answers of 1,000 objects can have a million pairs: as one list they would stop the
    # event loop, and mostly the first few thousand are enough.
    for start in range(0, len(order), _PAIRS_AT_ONCE):
        yield from map(tuple, pairs[order[start : start + _PAIRS_AT_ONCE]].tolist())


def _corners(detections: Sequence[Detection]) -> boxes.Boxes:
    rows = [(d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max) for d in detections]
    return np.array(rows, np.float32).reshape(-1, 4)


def _keys(detections: Sequence[Detection], by_id: bool) -> npt.NDArray[Any]:
    return np.array([d.class_id if by_id else d.label for d in detections])


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
