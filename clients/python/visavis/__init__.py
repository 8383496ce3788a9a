"""Ask vision models what they see; more types are in `results`, `cards` and `errors`."""

from visavis.async_client import AsyncClient
from visavis.cards import Model, Task
from visavis.client import Client
from visavis.connection import TLS
from visavis.errors import (
    AccessDenied,
    DeadlineExceeded,
    InvalidRequest,
    InvalidSettings,
    ModelNotFound,
    Overloaded,
    ServerFailed,
    Unavailable,
    VisavisError,
)
from visavis.images import ImageSource
from visavis.results import (
    Box,
    Classification,
    ClassifyResult,
    Comparison,
    Detection,
    DetectResult,
    ModelAnswer,
    StreamedAnswer,
)

__all__ = [
    "TLS",
    "AccessDenied",
    "AsyncClient",
    "Box",
    "Classification",
    "ClassifyResult",
    "Client",
    "Comparison",
    "DeadlineExceeded",
    "DetectResult",
    "Detection",
    "ImageSource",
    "InvalidRequest",
    "InvalidSettings",
    "Model",
    "ModelAnswer",
    "ModelNotFound",
    "Overloaded",
    "ServerFailed",
    "StreamedAnswer",
    "Task",
    "Unavailable",
    "VisavisError",
]
