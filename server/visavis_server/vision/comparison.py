"""Fan-out of one image to many models, and the agreement of their answers.

Works with anything that has a card and answers: a model in this process, on another
server, in a cluster. Knows no gRPC.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import structlog

from visavis_server.arrays import Tensor
from visavis_server.card import LabelSet, ModelDocument, Task
from visavis_server.errors import InvalidRequest, ModelFailed, VisavisError, drop_traceback, listed
from visavis_server.runtime.scheduling.work import Caller
from visavis_server.vision import boxes
from visavis_server.vision.labels import KNOWN_LABEL_SETS, SharedNames
from visavis_server.vision.results import (
    Answer,
    Classification,
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
        """The name in the repository."""
        ...

    @property
    def task(self) -> Task:
        """The task that the model is capable of."""
        ...

    @property
    def document(self) -> ModelDocument:
        """The model's document, with labels and card."""
        ...

    @property
    def served_by(self) -> ServedBy:
        """The origin that answers name: model, version, precision and provider."""
        ...

    async def answer(self, picture: Picture, options: Options, caller: Caller) -> Answer:
        """Return the model's answer, or raise VisavisError."""
        ...


@dataclass(frozen=True, slots=True)
class ClassificationAgreement:
    """The agreement of two classifiers; the divergence is None if their label sets differ.

    unknown_here, unknown_in_baseline: labels of each that the other model lacks; they are left out.
    """

    same_top1: bool
    top_k_overlap: float
    jensen_shannon_divergence: float | None
    unknown_here: int = 0
    unknown_in_baseline: int = 0


@dataclass(frozen=True, slots=True)
class Match:
    """Two matching detections, by their index in each answer."""

    index: int
    baseline_index: int
    iou: float


@dataclass(frozen=True, slots=True)
class DetectionAgreement:
    """The agreement of two detectors; the means are None without matches.

    unknown_here, unknown_in_baseline: detections of each whose label the other model lacks; they
    are left out.
    """

    matches: tuple[Match, ...]
    only_here: int
    only_in_baseline: int
    mean_iou: float | None
    mean_score_difference: float | None
    f1: float
    unknown_here: int = 0
    unknown_in_baseline: int = 0


Agreement = ClassificationAgreement | DetectionAgreement


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One model's answer, or its error."""

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
        """The reason why there is nothing to compare; empty if there is."""
        if len(self.answers) > 1:
            return ""
        return f"nothing to compare with: {self.baseline} is the only model for {self.task}"


@dataclass(frozen=True, slots=True)
class Selection:
    """The models and the baseline of a comparison, by task; and the models left out, with why."""

    by_task: dict[Task, list[Comparable]]
    baselines: dict[Task, str]
    left_out: dict[str, str]

    @property
    def models(self) -> list[Comparable]:
        """All models of the comparison, by task."""
        return [model for models in self.by_task.values() for model in models]


def select(
    available: Sequence[Comparable],
    tasks: Sequence[Task],
    names: Sequence[str],
    baseline: str | None,
) -> Selection:
    """Select the models of a comparison: those named, else all; for the given tasks, else all.

    available: every model, including those in `names`. Raises InvalidRequest if the baseline is
    not selected, or if no model is.
    """
    wanted = list(dict.fromkeys(tasks)) or list(Task)
    order = {name: index for index, name in enumerate(dict.fromkeys(names))}
    left_out: dict[str, str] = {}
    by_task: dict[Task, list[Comparable]] = {task: [] for task in Task if task in wanted}
    for model in sorted(available, key=lambda m: (order.get(m.name, len(order)), m.name)):
        if names and model.name not in order:
            left_out[model.name] = "not among the requested models"
        elif model.task not in wanted:
            left_out[model.name] = f"only capable of {model.task}, which was not requested"
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
    selected = {model.name for models in by_task.values() for model in models}
    if baseline is not None and baseline not in selected:
        raise InvalidRequest(
            "baseline",
            f"baseline {baseline[:128]!r} is not among the models compared: {listed(selected)}",
        )
    baselines = {
        task: baseline if any(m.name == baseline for m in models) and baseline else models[0].name
        for task, models in by_task.items()
    }
    return Selection(by_task, baselines, dict(sorted(left_out.items())))


async def answers(
    selection: Selection, picture: Picture, options: Options, caller: Caller
) -> AsyncGenerator[ModelAnswer, None]:
    """Yield each model's answer or error as soon as it is available.

    Closing the generator cancels the remaining answers.
    """

    async def ask(model: Comparable) -> ModelAnswer:
        try:
            return ModelAnswer(model, await model.answer(picture, options, caller))
        except VisavisError as error:
            drop_traceback(error)
            return ModelAnswer(model, error)
        except Exception as error:  # noqa: BLE001  a failure of one model must not affect the others
            _log.exception("model failed in a comparison", model=model.name)
            drop_traceback(error)
            return ModelAnswer(model, ModelFailed("internal error; see the server's log"))

    tasks = [asyncio.create_task(ask(model)) for model in selection.models]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def conclude(selection: Selection, received: Sequence[ModelAnswer]) -> list[TaskComparison]:
    """Return the answers in the selection's order, each with its agreement with the baseline."""
    by_name = {answer.model.name: answer for answer in received}
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
    names = shared_names(answer.model.document.label_set, baseline.model.document.label_set)
    agreement: Agreement
    if isinstance(here, Classified) and isinstance(there, Classified):
        agreement = classification_agreement(here, there, names)
    else:
        assert isinstance(here, Detected)
        assert isinstance(there, Detected)
        agreement = detection_agreement(here, there, names)
    return ModelAnswer(answer.model, answer.outcome, agreement)


def shared_names(here: LabelSet, baseline: LabelSet) -> SharedNames | None:
    """Return the names that two label sets share; None if their class ids mean the same.

    Known sets may be spelled differently.
    """
    same = here.labels == baseline.labels or here.name in KNOWN_LABEL_SETS
    if here.name == baseline.name and len(here.labels) == len(baseline.labels) and same:
        return None
    return SharedNames(here.labels, baseline.labels)


def classification_agreement(
    here: Classified, baseline: Classified, names: SharedNames | None = None
) -> ClassificationAgreement:
    """Return the agreement of two classifiers, by the names that they share; None: by class id."""
    ours, theirs = _keys(here.classifications, names), _keys(baseline.classifications, names)
    known, baseline_known = ([key for key in keys if key is not None] for keys in (ours, theirs))
    longer = max(len(known), len(baseline_known))
    return ClassificationAgreement(
        same_top1=bool(known and baseline_known) and known[0] == baseline_known[0],
        top_k_overlap=len(set(known) & set(baseline_known)) / longer if longer else 0.0,
        jensen_shannon_divergence=(
            jensen_shannon_divergence(here.probabilities, baseline.probabilities)
            if names is None
            else None
        ),
        unknown_here=len(ours) - len(known),
        unknown_in_baseline=len(theirs) - len(baseline_known),
    )


def jensen_shannon_divergence(one: Tensor, other: Tensor) -> float:
    """Return the divergence, base 2, of two distributions [n]: 0 if identical, 1 if disjoint."""
    p, q = one.astype(np.float64), other.astype(np.float64)
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2

    def relative_entropy(distribution: npt.NDArray[np.float64]) -> float:
        some = distribution > 0
        return float(np.sum(distribution[some] * np.log2(distribution[some] / middle[some])))

    return min(max((relative_entropy(p) + relative_entropy(q)) / 2, 0.0), 1.0)


def detection_agreement(
    here: Detected, baseline: Detected, names: SharedNames | None = None
) -> DetectionAgreement:
    """Return the agreement of two detectors, by matching pairs of one label, highest IoU first.

    Each detection is in at most one pair, and the result is symmetric. names: the names that both
    models share, which are matched; None: class ids are.
    """
    ours, theirs = here.detections, baseline.detections
    our_keys, their_keys = _keys(ours, names), _keys(theirs, names)
    overlap = boxes.iou(_corners(ours), _corners(theirs))
    overlap[_differ(our_keys, their_keys)] = 0
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
    unknown, baseline_unknown = our_keys.count(None), their_keys.count(None)
    known, baseline_known = len(ours) - unknown, len(theirs) - baseline_unknown
    total = known + baseline_known
    return DetectionAgreement(
        matches=tuple(matches),
        only_here=known - len(matches),
        only_in_baseline=baseline_known - len(matches),
        mean_iou=_mean([m.iou for m in matches]),
        mean_score_difference=_mean(differences),
        f1=2 * len(matches) / total if total else 1.0,
        unknown_here=unknown,
        unknown_in_baseline=baseline_unknown,
    )


def _best_first(overlap: Tensor) -> Iterator[tuple[int, int]]:
    """Yield the pairs [n, m] that overlap enough to match, the highest IoU first."""
    pairs = np.argwhere(overlap >= MATCH_IOU)
    order = np.argsort(-overlap[pairs[:, 0], pairs[:, 1]], kind="stable")
    # Two answers with 1,000 objects can have a million pairs: as one list they would block the
    # event loop, and usually the first few thousand suffice.
    for start in range(0, len(order), _PAIRS_AT_ONCE):
        yield from map(tuple, pairs[order[start : start + _PAIRS_AT_ONCE]].tolist())


def _corners(detections: Sequence[Detection]) -> boxes.Boxes:
    rows = [(d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max) for d in detections]
    return np.array(rows, np.float32).reshape(-1, 4)


def _keys(
    found: Sequence[Detection | Classification], names: SharedNames | None
) -> list[int | str | None]:
    """Return what each label is matched by; None for labels that the other model lacks."""
    return [one.class_id if names is None else names.key(one.label) for one in found]


def _differ(
    ours: Sequence[int | str | None], theirs: Sequence[int | str | None]
) -> npt.NDArray[np.bool_]:
    """Return [n, m]: True for pairs of different keys, or without a key."""
    numbers: dict[int | str | None, int] = {}
    one, other = (
        np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.intp)
        for keys in (ours, theirs)
    )
    differ = one[:, None] != other[None, :]
    if None in numbers:
        differ[one == numbers[None]] = True
    return differ


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
