"""Limits that a comparison must keep, for pipelines: failed only where that is certain."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from visavis.dataset.file_reading import parse_json, read_bytes
from visavis.errors import InvalidData, InvalidSettings
from visavis.evaluation.figures import ModelStudy, Study
from visavis.evaluation.statistics import Estimate, independent_difference

# Of an earlier run's JSON; its confusion matrices take most of it.
_MOST_BYTES: Final = 64 << 20

METRICS: Final = {"top1": "top1", "top5": "top5", "map": "map50_95", "map50": "map50"}
"""The metrics that limits may name beside `agreement`, with their names in results."""


Previous = Mapping[tuple[str, str], Estimate]
"""The figures of an earlier comparison, by model and metric."""


class Outcome(StrEnum):
    """The result of a check."""

    PASSED = "passed"
    FAILED = "failed"
    CANNOT_TELL = "can't tell"


@dataclass(frozen=True, slots=True)
class Check:
    """One limit, held against one model; why: a sentence with the figures."""

    model: str
    metric: str
    outcome: Outcome
    why: str


def limits(given: Sequence[str], option: str) -> dict[str, float]:
    """Return limits from `NAME=NUMBER`; option: where they come from, for errors.

    Raises InvalidSettings.
    """
    found = {}
    known = [*METRICS, "agreement"]
    for text in (part for one in given for part in re.split(r"[,\s]+", one) if part):
        name, _, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            raise InvalidSettings(f"{option} {text}: must be NAME=NUMBER, as top1=0.75") from None
        if name not in known:
            raise InvalidSettings(f"{option} {text}: NAME is one of {', '.join(known)}")
        if not 0 <= found[name] <= 1:
            raise InvalidSettings(f"{option} {text}: the number must be from 0 to 1")
    return found


def fail_under(study: Study, least: Mapping[str, float]) -> Iterator[Check]:
    """Yield a check of each limit on each model that it applies to.

    Raises InvalidSettings for a limit of which nothing was measured.
    """
    for name, limit in least.items():
        measured = list(_measured(study, name))
        if not measured:
            needs = "two models of one task" if name == "agreement" else "the truth: --labels"
            raise InvalidSettings(f"--fail-under {name}: nothing was measured; it needs {needs}")
        for model, estimate, missing in measured:
            yield _check(model, name, estimate, limit, missing)


def max_drop(study: Study, most: Mapping[str, float], before: Previous) -> Iterator[Check]:
    """Yield a check of how much each model has lost since an earlier run.

    before: that run's figures. Models are found by name. Raises InvalidSettings.
    """
    for name, limit in most.items():
        found = 0
        for model, estimate, missing in _measured(study, name):
            earlier = before.get((model, name))
            if earlier is not None:
                found += 1
                lost = independent_difference(earlier, estimate)
                yield _check_drop(model, name, lost, limit, missing)
        if not found:
            raise InvalidSettings(
                f"--max-drop {name}: the earlier comparison has it for none of these models"
            )


def outcome(checks: Sequence[Check]) -> Outcome:
    """Return the worst of all checks."""
    seen = {check.outcome for check in checks}
    if Outcome.FAILED in seen:
        return Outcome.FAILED
    return Outcome.CANNOT_TELL if Outcome.CANNOT_TELL in seen else Outcome.PASSED


def unanswered(study: Study) -> ModelStudy | None:
    """Return a model that answered no picture, although another one did: no limit holds it."""
    models = [model for task in study.tasks for model in task.models]
    silent = [model for model in models if model.failures and not model.pictures]
    return silent[0] if silent else None


def _measured(study: Study, name: str) -> Iterator[tuple[str, Estimate, int]]:
    """Yield each model's figure, and how many pictures are missing because of failures."""
    for task in study.tasks:
        failures = {model.card.name: model.failures for model in task.models}
        if name == "agreement":
            for pair in task.pairs:
                missing = max(failures.get(one, 0) for one in (pair.model, pair.baseline))
                yield pair.model, pair.agreement, missing
            continue
        for model in task.models:
            estimate = figure(model, name)
            if estimate is not None:
                yield model.card.name, estimate, model.failures


def figure(model: ModelStudy, name: str) -> Estimate | None:
    """Return one of a model's METRICS; None if it was not measured."""
    estimate: Estimate | None = getattr(model, METRICS[name])
    return estimate


def _check(model: str, name: str, estimate: Estimate, limit: float, missing: int) -> Check:
    figures = f"{name} is {_shown(estimate)}; the limit is {limit:g}{_without(missing)}"
    if estimate.high < limit:
        return Check(model, name, Outcome.FAILED, figures)
    sure = estimate.low >= limit and not missing
    return Check(model, name, Outcome.PASSED if sure else Outcome.CANNOT_TELL, figures)


def _check_drop(model: str, name: str, lost: Estimate, limit: float, missing: int) -> Check:
    figures = f"{name} fell by {_shown(lost)}; the limit is {limit:g}{_without(missing)}"
    if lost.low > limit:
        return Check(model, name, Outcome.FAILED, figures)
    sure = lost.high <= limit and not missing
    return Check(model, name, Outcome.PASSED if sure else Outcome.CANNOT_TELL, figures)


def _without(missing: int) -> str:
    """Say that pictures are missing: a model may fail on those that it would get wrong."""
    return f"; pictures not answered: {missing}" if missing else ""


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def read_previous(path: Path) -> Previous:
    """Return the figures in the JSON of an earlier comparison. Raises InvalidData."""
    data = parse_json(read_bytes(path, _MOST_BYTES), f"--baseline {path}")
    try:
        return dict(_estimates(data))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise InvalidData(f"--baseline {path} is not the JSON of an earlier comparison") from None


def _estimates(data: Any) -> Iterator[tuple[tuple[str, str], Estimate]]:
    for model in data["models"]:
        for name, key in METRICS.items():
            if model.get(key) and None not in model[key].values():
                yield (model["model"], name), _estimate(model[key])
    for pair in data["pairs"]:
        # Null if the two answered no picture in common.
        agreement = [pair[f"agreement{end}"] for end in ("", "_low", "_high")]
        if None not in agreement:
            yield (pair["model"], "agreement"), Estimate(*map(float, agreement))


def _estimate(fields: Mapping[str, float]) -> Estimate:
    return Estimate(float(fields["value"]), float(fields["low"]), float(fields["high"]))
