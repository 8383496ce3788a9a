"""Detectors at a score threshold, as they are used: precision, recall, F1, and which one to set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visavis.evaluation.boxes import Booleans, Boxes, matched
from visavis.evaluation.statistics import Floats


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Precision and recall at a score threshold; a right box overlaps an object by half."""

    threshold: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 0 where nothing is right."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True)
class Curve:
    """Precision and recall at every score, highest score first.

    scores, correct [n]: of all boxes on all pictures. objects: how many there are to find.
    """

    scores: Floats
    correct: Booleans
    objects: int

    def at(self, threshold: float) -> OperatingPoint:
        """Return the point at a threshold; precision is 1 where no box is left."""
        kept = int((self.scores >= threshold).sum())
        right = int(self.correct[:kept].sum())
        recall = right / self.objects if self.objects else 0.0
        return OperatingPoint(threshold, right / kept if kept else 1.0, recall)

    @property
    def best(self) -> OperatingPoint:
        """The point of the highest F1."""
        if not len(self.scores) or not self.objects:
            return self.at(1.0)
        right = np.cumsum(self.correct)
        f1 = 2 * right / (np.arange(1, len(right) + 1) + self.objects)
        # Boxes of one score cannot be told apart: only the last of them is a threshold.
        last = np.append(self.scores[1:] != self.scores[:-1], True)
        return self.at(float(self.scores[int(np.argmax(np.where(last, f1, -1.0)))]))

    def at_precision(self, precision: float) -> OperatingPoint | None:
        """Return the highest recall with a precision; None if no threshold reaches it."""
        if not len(self.scores):
            return None
        reached = np.cumsum(self.correct) / np.arange(1, len(self.scores) + 1) >= precision
        reached &= np.append(self.scores[1:] != self.scores[:-1], True)
        if not reached.any():
            return None
        return self.at(float(self.scores[int(np.flatnonzero(reached)[-1])]))


def curve(found: Sequence[Boxes], truth: Sequence[Boxes]) -> Curve:
    """Return a detector's curve. Crowds are left out: they are neither right nor wrong."""
    scores, correct, objects = [], [], 0
    for boxes, known in zip(found, truth, strict=True):
        real = known.real
        # From the best box on, so that a threshold changes no match above it.
        scores.append(boxes.scores)
        correct.append(matched(boxes, real)[0])
        objects += len(real.scores)
    joined = np.concatenate(scores) if scores else np.zeros(0)
    order = np.argsort(-joined, kind="stable")
    hits = np.concatenate(correct)[order] if correct else np.zeros(0, np.bool_)
    return Curve(joined[order], hits, objects)
