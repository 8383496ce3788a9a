"""What an ingress and the replicas of a model send each other; pickled by Ray."""

from dataclasses import dataclass
from typing import Any, Self

from visavis_server import errors
from visavis_server.arrays import Tensor
from visavis_server.card import ModelDocument
from visavis_server.errors import ModelFailed, Overloaded, VisavisError
from visavis_server.models.served_model import Origin
from visavis_server.runtime.plan import Plan
from visavis_server.vision.results import Answer, ClassifyOptions, DetectOptions


@dataclass(frozen=True, slots=True)
class Description:
    """One version of a model, as a replica has loaded it.

    output_shapes: of the graph; None where they are dynamic. bf16: it computes in bfloat16.
    """

    version: int
    document: ModelDocument
    plan: Plan
    provider: str
    output_shapes: list[Any]
    origin: Origin
    bf16: bool


@dataclass(frozen=True, slots=True)
class Work:
    """A request to a replica; its picture, or its tensor, is sent beside it.

    version: of the model. timeout_s: until the caller's deadline; None: it has none. options: of a
    picture.
    """

    version: int
    method: str
    timeout_s: float | None
    options: ClassifyOptions | DetectOptions | None = None


@dataclass(frozen=True, slots=True)
class PictureAnswer:
    """The answer for a picture, and the size of the picture."""

    answer: Answer
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class TensorAnswer:
    """The family's tensor, and the milliseconds that it took in the queue and in the run."""

    tensor: Tensor
    total_ms: float


@dataclass(frozen=True, slots=True)
class UnknownVersion:
    """The replica does not have the version: it is older or newer than the ingress knows."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An expected error, by its parts: exceptions would arrive with Ray's traceback as text."""

    kind: str
    message: str
    field: str | None
    retry_after_s: float

    @classmethod
    def of(cls, error: VisavisError) -> Self:
        """Return an error's parts."""
        retry_after_s = error.retry_after_s if isinstance(error, Overloaded) else 0.0
        return cls(type(error).__name__, str(error), error.field, retry_after_s)

    def error(self) -> VisavisError:
        """Return the error."""
        kind: type[VisavisError] = getattr(errors, self.kind, ModelFailed)
        # Past the constructors, whose arguments differ.
        error = kind.__new__(kind, self.message)
        error.field = self.field
        if isinstance(error, Overloaded):
            error.retry_after_s = self.retry_after_s
        return error


Outcome = PictureAnswer | TensorAnswer | UnknownVersion | Failure
"""What a replica returns."""
