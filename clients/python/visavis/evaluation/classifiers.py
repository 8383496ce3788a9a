"""Classifiers on a folder of pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from visavis.cards import Model, Task
from visavis.evaluation.accuracy import top_k
from visavis.evaluation.answers import PictureAnswers
from visavis.evaluation.figures import (
    Cost,
    Disagreement,
    Fact,
    ModelStudy,
    Pair,
    Slice,
    TaskStudy,
    Truths,
)
from visavis.evaluation.runs import runs_of, study_of
from visavis.evaluation.shared_classes import Names, SharedClasses
from visavis.evaluation.slices import Parts, sliced
from visavis.evaluation.statistics import (
    Estimate,
    Floats,
    changes,
    difference_of_means,
    proportion,
)


@dataclass(frozen=True)
class _Classifiers:
    """models: the first gives the class ids of the truth. names: of each model's classes.

    right: for each model, whether its first class is the truth, by path.
    """

    models: Sequence[Model]
    baseline: Model
    answers: Sequence[PictureAnswers]
    truths: Mapping[str, int]
    names: Mapping[str, Names]
    right: dict[str, dict[str, bool]]

    @property
    def others(self) -> list[Model]:
        return [model for model in self.models if model.name != self.baseline.name]


@dataclass(frozen=True, slots=True)
class _Same:
    """Whether two models' first classes are the same, by path.

    unknown, unknown_there: pictures that are left out, as the other lacks the first class.
    """

    values: dict[str, bool]
    unknown: int
    unknown_there: int


def classifiers(
    models: Sequence[Model],
    baseline: Model,
    answers: Sequence[PictureAnswers],
    truths: Truths,
    found: Parts,
    costs: Mapping[str, Cost],
) -> TaskStudy:
    """Return the figures of all classifiers; see `study`."""
    known = {path: one for path, one in truths.items() if isinstance(one, int)}
    all_ = _Classifiers(
        models, baseline, answers, known, {one.name: Names(one, models[0]) for one in models}, {}
    )
    studies = [_study(all_, model, costs) for model in models]
    contests = {
        (one.name, other.name): estimate
        for one, other in combinations(models, 2)
        if (estimate := _difference(all_, one, other)) is not None
    }
    return TaskStudy(
        Task.CLASSIFICATION,
        tuple(studies),
        tuple(_pair(all_, model) for model in all_.others),
        sum(one.path in known for one in answers),
        tuple(_disagreements(all_)),
        (*_classes(all_), *_slices(all_, found)),
        found.folders_left_out,
        contests,
    )


def _study(all_: _Classifiers, model: Model, costs: Mapping[str, Cost]) -> ModelStudy:
    labelled = [one for one in all_.answers if one.path in all_.truths]
    shared = SharedClasses(all_.models[0], model)
    own = {one.path: shared.ours(all_.truths[one.path]) for one in labelled}
    truth = {path: class_id for path, class_id in own.items() if class_id is not None}
    runs = {path: run for path, run in runs_of(model, labelled).items() if path in truth}
    ranked, wanted = [run.classes for run in runs.values()], [truth[path] for path in runs]
    first = top_k(ranked, wanted, 1)
    all_.right[model.name] = dict(zip(runs, map(bool, first), strict=True))
    accuracy: dict[str, Any] = {}
    if runs:
        names = all_.names[model.name]
        accuracy = {
            "top1": proportion(first.astype(np.float64)),
            "top5": proportion(top_k(ranked, wanted, 5).astype(np.float64)),
            "matrix": Counter(
                (names[one], names[best[0]])
                for best, one in zip(ranked, wanted, strict=True)
                if best
            ),
        }
    return study_of(model, all_.answers, costs, accuracy)


def _on_both(
    all_: _Classifiers, model: Model, other: Model, paths: frozenset[str] | None = None
) -> tuple[Floats, Floats] | None:
    """Return whether each of two models is right, on the pictures that both answered."""
    ours, theirs = all_.right[model.name], all_.right[other.name]
    both = [path for path in (ours if paths is None else sorted(paths)) if path in ours]
    both = [path for path in both if path in theirs]
    if not both:
        return None
    first, second = (np.array([own[path] for path in both], np.float64) for own in (ours, theirs))
    return first, second


def _difference(
    all_: _Classifiers, model: Model, other: Model, paths: frozenset[str] | None = None
) -> Estimate | None:
    both = _on_both(all_, model, other, paths)
    return None if both is None else difference_of_means(*both).within(-1.0, 1.0)


def _pair(all_: _Classifiers, model: Model) -> Pair:
    baseline = all_.baseline
    shared = SharedClasses(model, baseline)
    same = _same(all_, model)
    pair = Pair(
        model.name,
        baseline.name,
        proportion(np.array(list(same.values.values()), np.float64)),
        unknown=shared.unknown,
        unknown_here=same.unknown,
        unknown_in_baseline=same.unknown_there,
    )
    both = _on_both(all_, model, baseline)
    if both is None:
        return pair
    return replace(
        pair,
        metric="top1",
        difference=difference_of_means(*both).within(-1.0, 1.0),
        changes=changes(both[0] > 0, both[1] > 0),
    )


def _same(all_: _Classifiers, model: Model) -> _Same:
    """Return for each picture whether a model's first class is the baseline's."""
    ours, theirs = (runs_of(one, all_.answers) for one in (model, all_.baseline))
    shared = SharedClasses(model, all_.baseline)
    same: dict[str, bool] = {}
    unknown = unknown_there = 0
    for path in ours.keys() & theirs.keys():
        if not (ours[path].classes and theirs[path].classes):
            continue
        here, there = shared.ours(ours[path].classes[0]), shared.theirs(theirs[path].classes[0])
        unknown += here is None
        unknown_there += there is None
        if here is not None and there is not None:
            same[path] = here == there
    return _Same(same, unknown, unknown_there)


def _classes(all_: _Classifiers) -> list[Slice]:
    names = all_.names[all_.models[0].name]
    answered = {one.path for one in all_.answers}
    of_class: dict[int, set[str]] = {}
    for path, class_id in all_.truths.items():
        if path in answered:
            of_class.setdefault(class_id, set()).add(path)
    slices = []
    for class_id in sorted(of_class):
        paths = frozenset(of_class[class_id])
        figures, differences = _measured(all_, paths)
        if figures:
            slices.append(Slice("class", names[class_id], "top1", paths, figures, differences))
    return slices


def _slices(all_: _Classifiers, found: Parts) -> list[Slice]:
    if any(all_.right.values()):
        return sliced(found, "top1", lambda paths: _measured(all_, paths))
    same = {model.name: _same(all_, model).values for model in all_.others}

    def agreements(paths: frozenset[str]) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
        figures = {}
        for name, own in same.items():
            values = np.array([own[path] for path in sorted(paths) if path in own], np.float64)
            if len(values):
                figures[name] = proportion(values)
        return figures, {}

    return sliced(found, "agreement", agreements)


def _measured(
    all_: _Classifiers, paths: frozenset[str]
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    figures, differences = {}, {}
    for model in all_.models:
        right_of = all_.right[model.name]
        right = [right_of[path] for path in sorted(paths) if path in right_of]
        if right:
            figures[model.name] = proportion(np.array(right, np.float64))
    for model in all_.others:
        difference = _difference(all_, model, all_.baseline, paths)
        if difference is not None:
            differences[model.name] = difference
    return figures, differences


def _disagreements(all_: _Classifiers) -> list[Disagreement]:
    """Return pictures with a wrong or a different answer; first those where all contradict."""
    found = []
    for one in all_.answers:
        answers = {
            model.name: all_.names[model.name][run.classes[0]]
            for model in all_.models
            if (run := one.runs.get(model.name)) and run.classes
        }
        truth = all_.truths.get(one.path)
        wanted = "" if truth is None else all_.names[all_.models[0].name][truth]
        agreed = len(set(answers.values())) == 1
        suspect = bool(wanted) and agreed and len(answers) > 1 and wanted not in answers.values()
        facts = tuple(_facts(all_, one.path, answers, wanted, suspect))
        if facts:
            found.append(Disagreement(one.path, answers, wanted, suspect, facts))
    return sorted(found, key=lambda one: (not one.suspect, one.path))


def _facts(
    all_: _Classifiers, path: str, answers: Mapping[str, str], wanted: str, suspect: bool
) -> list[Fact]:
    baseline = all_.baseline.name
    facts = []
    for name, answer in answers.items():
        right = all_.right[name].get(path)
        theirs = all_.right[baseline].get(path)
        if right is False:
            facts.append(Fact(name, "wrong", wanted, answer))
        if suspect:
            facts.append(Fact(name, "suspect", wanted, answer))
        if name == baseline:
            continue
        if baseline in answers and answers[baseline] != answer:
            facts.append(Fact(name, "differs", wanted, answer))
        if right is not None and theirs is not None and right != theirs:
            facts.append(Fact(name, "fixed" if right else "broke", wanted, answer))
    return facts
