"""Which model to take: those that no other beats, and the best within a latency."""

from collections.abc import Sequence
from dataclasses import dataclass

from visavis.cards import Task
from visavis.evaluation.statistics import Estimate
from visavis.evaluation.study import ModelStudy, TaskStudy


@dataclass(frozen=True, slots=True)
class Choice:
    """The best model of a task within a latency; rivals: those that may be as good."""

    model: str
    accuracy: Estimate
    p50_ms: float
    rivals: tuple[str, ...]


def accuracy_of(model: ModelStudy, task: Task) -> Estimate | None:
    """Return the figure by which models of a task are chosen: top-1, or mAP50-95."""
    return model.map50_95 if task is Task.DETECTION else model.top1


def dominated(model: ModelStudy, task: TaskStudy) -> bool:
    """Return True if another model is at least as accurate and as fast, and better in one of both.

    False where either figure is unknown.
    """
    mine = _both(model, task.task)
    others = [_both(other, task.task) for other in task.models if other is not model]
    return mine is not None and any(
        other is not None and other != mine and other[0] >= mine[0] and other[1] <= mine[1]
        for other in others
    )


def best_within(task: TaskStudy, most_ms: float) -> Choice | None:
    """Return the most accurate model whose median latency is at most so many milliseconds.

    None if no model is that fast, or without truth.
    """
    fast = [
        (model, accuracy, model.latency.p50)
        for model in task.models
        if (accuracy := accuracy_of(model, task.task)) is not None
        and model.latency is not None
        and model.latency.p50 <= most_ms
    ]
    if not fast:
        return None
    best, accuracy, p50_ms = max(fast, key=lambda each: (each[1].value, -each[2]))
    rivals = tuple(
        model.card.name for model, own, _ in fast if model is not best and own.high >= accuracy.low
    )
    return Choice(best.card.name, accuracy, p50_ms, rivals)


def sentence(task: TaskStudy, most_ms: float) -> str:
    """Return the choice in words."""
    choice = best_within(task, most_ms)
    if choice is None:
        measured: Sequence[ModelStudy] = [m for m in task.models if accuracy_of(m, task.task)]
        why = "no model is that fast" if measured else "accuracy is unknown without truth"
        return f"{task.task.value}: nothing to take within {most_ms:g} ms: {why}."
    also = f"; {', '.join(choice.rivals)} may be as good" if choice.rivals else ""
    return (
        f"{task.task.value}: take {choice.model} within {most_ms:g} ms: "
        f"{choice.accuracy.value:.3f} at {choice.p50_ms:.1f} ms{also}."
    )


def _both(model: ModelStudy, task: Task) -> tuple[float, float] | None:
    accuracy = accuracy_of(model, task)
    if accuracy is None or model.latency is None:
        return None
    return accuracy.value, model.latency.p50
