"""The answers of models, as plain Python types. The services convert them to messages."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from visavis_server.arrays import Image, Tensor
from visavis_server.card import Task
from visavis_server.runtime.budget import Held
from visavis_server.telemetry.timings import Timings
from visavis_server.vision.heat_maps import Explain, HeatMap


class Picture:
    """A request's image, decoded once, at its first use.

    held: counts the bytes of the pixels; None: they are not counted. keep: the pixels are needed
    after a model has prepared its input. encoded: returns the file that is decoded; None:
    raw pixels are. width, height: 0 until the image is decoded.
    """

    def __init__(
        self,
        decode: Callable[[], Image],
        held: Held | None = None,
        encoded: Callable[[], bytes] | None = None,
    ) -> None:
        self.keep = False
        self.encoded = encoded
        self.width = self.height = 0
        self._decode = decode
        self._held = held
        self._lock = threading.Lock()
        self._pixels: Image | None = None

    def decode(self) -> float:
        """Decode the image; return the milliseconds taken, 0 if it was already decoded.

        Raises InvalidRequest, and Overloaded if memory is short.
        """
        with self._lock:
            if self._pixels is not None:
                return 0.0
            started = time.perf_counter()
            try:
                self._pixels = self._decode()
            finally:
                # Release what decoding took beyond the pixels, or all of it if it failed.
                if self._held is not None:
                    self._held.fits(0 if self._pixels is None else self._pixels.nbytes)
            self.height, self.width, _ = self._pixels.shape
            return (time.perf_counter() - started) * 1e3

    def drop(self) -> None:
        """Release the pixels; the next use decodes the image again."""
        with self._lock:
            self._pixels = None
            if self._held is not None:
                self._held.release()

    @property
    def pixels(self) -> Image:
        """The decoded image."""
        self.decode()
        pixels = self._pixels
        assert pixels is not None
        return pixels


@dataclass(frozen=True, slots=True)
class Classification:
    """One label for the whole image; score in [0, 1]."""

    class_id: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the original image."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True, slots=True)
class Detection:
    """One object found in the image; score in [0, 1]."""

    box: Box
    class_id: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Classified:
    """A classifier's answer: the top k, highest first, and all probabilities [classes]."""

    classifications: tuple[Classification, ...]
    probabilities: Tensor = field(repr=False, compare=False)
    heat_map: HeatMap | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Detected:
    """A detector's answer, highest score first."""

    detections: tuple[Detection, ...]
    heat_map: HeatMap | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ServedBy:
    """The model, version and provider that served an answer."""

    model: str
    version: int
    precision: str
    execution_provider: str
    random_weights: bool
    task: Task


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer, with its origin and timings."""

    result: Classified | Detected
    served_by: ServedBy
    timings: Timings


class InvalidOption(ValueError):
    """An option is out of range; `option` is its name."""

    def __init__(self, option: str, value: object, allowed: str) -> None:
        super().__init__(f"{option} is {value!r}; it must be {allowed}")
        self.option = option


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """Options of classification. Raises InvalidOption if one is out of range.

    top_k: the number of labels to return, at least 1. explain: the heat map to return; None: none.
    """

    top_k: int = 5
    explain: Explain | None = None

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise InvalidOption("top_k", self.top_k, "at least 1")


@dataclass(frozen=True, slots=True)
class DetectOptions:
    """Options of detection; None selects the model's default. Raises InvalidOption.

    score_threshold, iou_threshold: in [0, 1]. max_detections: 1 to 1000. labels: the labels to
    keep; empty keeps all. class_agnostic: suppress boxes across labels. explain: as in
    ClassifyOptions.
    """

    score_threshold: float | None = None
    iou_threshold: float | None = None
    max_detections: int | None = None
    labels: tuple[str, ...] = ()
    class_agnostic: bool = False
    explain: Explain | None = None

    def __post_init__(self) -> None:
        for name in ("score_threshold", "iou_threshold"):
            value = getattr(self, name)
            # Written so that NaN fails too.
            if value is not None and not 0 <= value <= 1:
                raise InvalidOption(name, value, "0 to 1")
        most = self.max_detections
        if most is not None and not 1 <= most <= 1000:
            raise InvalidOption("max_detections", most, "1 to 1000")


@dataclass(frozen=True, slots=True)
class Options:
    """Options of both tasks; a model reads those of its task."""

    classify: ClassifyOptions = ClassifyOptions()
    detect: DetectOptions = DetectOptions()

    def of(self, task: Task) -> ClassifyOptions | DetectOptions:
        """Return the options of one task."""
        return self.classify if task is Task.CLASSIFICATION else self.detect
