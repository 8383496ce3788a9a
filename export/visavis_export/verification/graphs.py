"""Explains a graph whose outputs differ from the original's for the original's own input.

Hypotheses are tried in this order: what the graph does to its input first, what it does to its
outputs last, and then its layers, one by one.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from visavis_export.families.original import Floats
from visavis_export.verification.cases import Case
from visavis_export.verification.foreign_file import ForeignFile
from visavis_export.verification.layers import Comparison, Layer, compare_layers
from visavis_export.verification.mistakes import finding
from visavis_export.verification.originals import Original, probabilities
from visavis_export.verification.outcome import Finding
from visavis_export.verification.outputs import graph_difference, tolerance_of
from visavis_export.verification.pipelines import IMAGENET_MEAN, IMAGENET_STD
from visavis_server.card import ClassScores, Task

Step = Callable[[Floats], Floats]

_MEAN, _STD = (np.array(one, np.float32)[:, None, None] for one in (IMAGENET_MEAN, IMAGENET_STD))
# Columns that are compared to find the order of classes.
_MOST_ROWS = 2000


def explain(cases: Sequence[Case], file: ForeignFile, original: Original) -> tuple[Finding, ...]:
    """Return why a graph's outputs differ, on pictures where they do; the first is the worst."""
    case = cases[0]
    outputs = [file.run(one.tensor) for one in cases]
    if not all(np.isfinite(one).all() for one in outputs[0]):
        return (finding("not finite"),)
    first = _input_step(cases, outputs, file, original)
    if first:
        return first
    last = _output_step(case, outputs[0], file, original)
    if last:
        return (last,)
    return _of_layers(case, file, original)


def _input_steps(original: Original) -> Iterator[tuple[str, Step]]:
    """Yield what a graph may do to its input before the network, by mistake."""
    values = original.pipeline.values
    yield "graph divides", lambda x: x / np.float32(255)
    yield "graph multiplies", lambda x: x * np.float32(255)
    yield "graph normalises", lambda x: (x - _MEAN) / _STD
    yield "graph scales to -1 to 1", lambda x: x * 2 - 1
    if values.normalised:
        yield "graph undoes mean and std", lambda x: x * _STD + _MEAN


def _input_step(
    cases: Sequence[Case],
    outputs: Sequence[list[Floats]],
    file: ForeignFile,
    original: Original,
) -> tuple[Finding, ...]:
    """Return what the graph does to its input first; empty if nothing that is known."""

    def swap(x: Floats) -> Floats:
        return np.ascontiguousarray(x[::-1])

    single = [((name,), step) for name, step in _input_steps(original)]
    trials: list[tuple[tuple[str, ...], Step]] = [(("graph swaps",), swap), *single]
    trials += [
        (("graph swaps", *names), lambda x, step=step: step(swap(x)))  # type: ignore[misc]
        for names, step in single
    ]
    for names, step in trials:
        if all(
            _same(case, output, file, original, step)
            for case, output in zip(cases, outputs, strict=True)
        ):
            return tuple(finding(name) for name in names)
    return ()


def _same(
    case: Case, outputs: list[Floats], file: ForeignFile, original: Original, step: Step
) -> bool:
    raw = original.network(step(case.tensor))
    return (
        bool(np.isfinite(raw).all()) and graph_difference(case, file, original, outputs, raw).same
    )


def _output_step(
    case: Case, outputs: list[Floats], file: ForeignFile, original: Original
) -> Finding | None:
    """Return what the graph does otherwise after the network; None if nothing that is known."""
    limit = tolerance_of(file.precision).score
    if original.task is Task.CLASSIFICATION:
        ours, theirs = outputs[0][0].astype(np.float32), probabilities(case.raw)
        if ours.shape != theirs.shape:
            return None
        if np.abs(ours - probabilities(theirs)).max() <= min(limit, 0.1 / len(ours)):
            return finding("graph softmax twice")
        logits = isinstance(file.document.output, ClassScores) and (ours.min() < 0)
        return _order(ours[:, None], (case.raw if logits else theirs)[:, None])
    ours, theirs = file.scores(outputs), original.scores(case.raw)
    if ours.shape != theirs.shape:
        return None
    boxes = np.abs(ours[:4] - theirs[:4]).max() <= 1
    scores = np.abs(ours[4:] - theirs[4:]).max() <= limit
    if boxes:
        with np.errstate(over="ignore"):
            if np.abs(1 / (1 + np.exp(-ours[4:])) - theirs[4:]).max() <= limit:
                return finding("sigmoid missing")
        return _order(ours[4:], theirs[4:])
    if scores:
        width, height = file.size
        scale = np.array((width, height) * 2, np.float32)[:, None]
        if np.abs(ours[:4] * scale - theirs[:4]).max() <= 1:
            return finding("fractions")
        half = theirs[2:4] / 2
        corners = np.concatenate((theirs[:2] - half, theirs[:2] + half))
        if np.abs(ours[:4] - corners).max() <= 1:
            return finding("corners")
    return None


def _order(ours: Floats, theirs: Floats) -> Finding | None:
    """Return the finding for rows [classes, n] that are the original's in another order."""
    best = np.argsort(-theirs.max(axis=0))[:_MOST_ROWS]
    ours, theirs = ours[:, best], theirs[:, best]
    # Classes that never score say nothing of their place.
    telling = np.flatnonzero(theirs.max(axis=1) - theirs.min(initial=0) > 1e-3)
    if len(telling) < 2:
        return None
    nearest = [int(np.abs(ours - theirs[k]).max(axis=1).argmin()) for k in telling]
    apart = [
        float(np.abs(ours[at] - theirs[k]).max()) for at, k in zip(nearest, telling, strict=True)
    ]
    scale = max(1.0, float(np.abs(theirs).max()))
    if max(apart) > 2e-3 * scale or len(set(nearest)) < len(nearest):
        return None
    moved = [(at, int(k)) for at, k in zip(nearest, telling, strict=True) if at != k]
    return finding("class order", one=moved[0][0], other=moved[0][1]) if moved else None


def _of_layers(case: Case, file: ForeignFile, original: Original) -> tuple[Finding, ...]:
    """Return the finding about the first layer that differs."""
    compared = compare_layers(original.layers(case.tensor), file.path, case.tensor, file.precision)
    return (_of_comparison(compared),)


def _of_comparison(compared: Comparison) -> Finding:
    pairs, total = compared.pairs, compared.total
    if not compared.same_structure:
        return finding("other network", count=len(pairs), total=total)
    if compared.other_weights:
        first = compared.other_weights[0]
        facts = {"count": len(compared.other_weights), "total": total, "layer": _name(pairs[first])}
        if len(compared.other_weights) > 0.8 * len(pairs):
            return finding("other weights", **facts)
        return finding("some weights", step=compared.weight_step, **facts)
    if not compared.other_outputs:
        return finding("after the last layer")
    first = compared.other_outputs[0]
    name = _name(pairs[first])
    return finding("operators" if first else "before the first layer", layer=name)


def _name(pair: tuple[Layer, Layer]) -> str:
    original, graph = (one.name for one in pair)
    return f"{original} ({graph} in the graph)" if graph and graph != original else original
