"""The timings of a request."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """The time that a request took in each stage, in milliseconds."""

    queue_ms: float = 0.0
    decode_ms: float = 0.0
    preprocess_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0
    total_ms: float = 0.0
