"""Which model to take: those that no other beats, and the best within a latency."""

from collections.abc import Sequence
from dataclasses import dataclass

from visavis.cards import Task
from visavis.evaluation.figures import ModelStudy, TaskStudy
from visavis.evaluation.statistics import Estimate, Verdict


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


def worth_of(model: ModelStudy, task: TaskStudy) -> Estimate | None:
    """Return a model's accuracy; without truth, its agreement with the baseline."""
    accuracy = accuracy_of(model, task.task)
    if accuracy is not None or any(accuracy_of(one, task.task) for one in task.models):
        return accuracy
    agreements = {pair.model: pair.agreement for pair in task.pairs}
    if task.pairs and model.card.name == task.pairs[0].baseline:
        return Estimate(1.0, 1.0, 1.0)
    return agreements.get(model.card.name)


def dominated_by(model: ModelStudy, task: TaskStudy) -> tuple[str, ...]:
    """Return the models that are worse than this one in nothing, and better in something.

    By accuracy, or agreement without truth, by median latency and, if it is known of both, by
    memory. Empty where accuracy or latency is unknown.
    """
    return tuple(
        other.card.name
        for other in task.models
        if other is not model and _beats(_figures(other, task), _figures(model, task))
    )


def best_within(task: TaskStudy, most_ms: float) -> Choice | None:
    """Return the most accurate model whose median latency is at most so many milliseconds.

    Rivals are those whose difference to it, on the same pictures, may be zero. None if no model is
    that fast, or without truth.
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
    name = best.card.name
    rivals = tuple(
        model.card.name
        for model, _, _ in fast
        if model is not best and _may_be_as_good(task.difference(model.card.name, name))
    )
    return Choice(name, accuracy, p50_ms, rivals)


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


def _may_be_as_good(difference: Estimate | None) -> bool:
    """Return False only where a model is surely worse on the pictures that both answered."""
    return difference is None or difference.verdict is not Verdict.WORSE


def _figures(model: ModelStudy, task: TaskStudy) -> tuple[float, float, float | None] | None:
    """Return worth, speed and thrift of a model; of each, more is better."""
    worth = worth_of(model, task)
    if worth is None or model.latency is None:
        return None
    memory = model.cost.memory_bytes if model.cost else None
    return worth.value, -model.latency.p50, None if memory is None else -memory


def _beats(
    one: tuple[float, float, float | None] | None,
    other: tuple[float, float, float | None] | None,
) -> bool:
    if one is None or other is None:
        return False
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
