"""Answers of models that don't exist."""

import numpy as np

from visavis_server.vision.results import Box, Classification, Classified, Detected, Detection


def classified(*probabilities: float, top_k: int = 2, labels: str = "abcdef") -> Classified:
    """Return the top k of a distribution; labels: one letter per class."""
    best = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])[:top_k]
    return Classified(
        tuple(Classification(i, labels[i], probabilities[i]) for i in best),
        np.array(probabilities, np.float32),
    )


def detected(*found: tuple[tuple[float, float, float, float], int, float]) -> Detected:
    """Return (corners, class id, score) as detections of cats (0) and dogs (1)."""
    names = ("cat", "dog")
    return Detected(tuple(Detection(Box(*box), i, names[i], score) for box, i, score in found))
