"""Client for visavis servers, which run and compare vision models.

`results`, `cards` and `errors` hold further types.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visavis.async_client import AsyncClient
    from visavis.batches import BatchItem
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
        HeatMap,
        ModelAnswer,
        StreamedAnswer,
    )

__all__ = [
    "TLS",
    "AccessDenied",
    "AsyncClient",
    "BatchItem",
    "Box",
    "Classification",
    "ClassifyResult",
    "Client",
    "Comparison",
    "DeadlineExceeded",
    "DetectResult",
    "Detection",
    "HeatMap",
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

_MODULES = (
    "errors",
    "results",
    "cards",
    "images",
    "connection",
    "batches",
    "client",
    "async_client",
)


def __getattr__(name: str) -> Any:
    """Import a name on first use, so that programs can set gRPC's variables before its import."""
    if name in _MODULES:
        return import_module(f"visavis.{name}")
    if name in __all__:
        for module in map(import_module, (f"visavis.{module}" for module in _MODULES)):
            if hasattr(module, name):
                return globals().setdefault(name, getattr(module, name))
    raise AttributeError(f"module 'visavis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
