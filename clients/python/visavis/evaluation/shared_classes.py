"""The classes that two models share, and names that all models of a task are shown with."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from visavis.agreement import KNOWN_LABEL_SETS
from visavis.cards import Model
from visavis.dataset.names import ClassNames
from visavis.evaluation.boxes import Boxes


def have_same_ids(one: Model, other: Model) -> bool:
    """Return True if the class ids of two models mean the same."""
    ours, theirs = one.label_set, other.label_set
    named = ours.name == theirs.name and ours.name in KNOWN_LABEL_SETS
    return ours.labels == theirs.labels or (named and ours.size == theirs.size)


class SharedClasses:
    """Class ids of two models as those of the baseline; None: the other does not know the class."""

    def __init__(self, model: Model, baseline: Model) -> None:
        ours, theirs = model.label_set, baseline.label_set
        if have_same_ids(model, baseline):
            self._ours = {k: k for k in range(ours.size)}
        else:
            names = ClassNames(theirs.labels)
            found = {k: names.find(label) for k, label in enumerate(ours.labels)}
            self._ours = {k: there for k, there in found.items() if there is not None}
        self._theirs = set(self._ours.values())
        self.unknown = ours.size - len(self._ours) + theirs.size - len(self._theirs)

    def ours(self, class_id: int) -> int | None:
        """Return the baseline's id of a class of the model."""
        return self._ours.get(class_id)

    def theirs(self, class_id: int) -> int | None:
        """Return a class id of the baseline if the model knows it."""
        return class_id if class_id in self._theirs else None

    def of_ours(self, boxes: Boxes) -> Boxes:
        """Return the model's boxes of shared classes, with the baseline's ids."""
        kept = boxes.where(np.array([int(k) in self._ours for k in boxes.class_ids], np.bool_))
        ids = np.array([self._ours[int(k)] for k in kept.class_ids], np.int64)
        return Boxes(kept.xyxy, ids, kept.scores, kept.crowds)

    def of_theirs(self, boxes: Boxes) -> Boxes:
        """Return the baseline's boxes of shared classes."""
        return boxes.where(np.array([int(k) in self._theirs for k in boxes.class_ids], np.bool_))


class Names:
    """The names of a model's classes; a class that the first model has too is called as there."""

    def __init__(self, model: Model, first: Model) -> None:
        own, shared = _unique(model.label_set.labels), SharedClasses(model, first)
        theirs = _unique(first.label_set.labels)
        self._names = [
            theirs[there] if (there := shared.ours(k)) is not None and there < len(theirs) else name
            for k, name in enumerate(own)
        ]

    def __getitem__(self, class_id: int) -> str:
        return self._names[class_id] if 0 <= class_id < len(self._names) else str(class_id)


def _unique(labels: Sequence[str]) -> list[str]:
    """Return class names; ImageNet has two cranes and two maillots, which get their ids."""
    seen = Counter(labels)
    return [f"{name} ({k})" if seen[name] > 1 else name for k, name in enumerate(labels)]
