"""Results as other libraries' values: plain dicts, COCO, supervision, pandas.

The libraries are imported when they are needed. None of them is a dependency of the SDK.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

Edges = tuple[float, float, float, float]
Row = Mapping[str, object]


class Convertible:
    """A result that can be turned into plain values."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, which `json.dumps` accepts.

        The keys are the contract's field names. Absent values are None, tuples are lists, and the
        bytes of an annotated picture are Base64. The protobuf message is left out.
        """
        plain: dict[str, Any] = _plain(self)
        return plain


def coco_entries(
    image_id: int,
    category_ids: Mapping[str, int] | None,
    detections: Sequence[tuple[Edges, int, str, float]],
) -> list[dict[str, Any]]:
    """Return detections as entries of COCO's results format.

    detections: edges, class id, label and score of each. Raises ValueError for a label without a
    category.
    """
    entries = []
    for (x_min, y_min, x_max, y_max), class_id, label, score in detections:
        category_id = class_id if category_ids is None else category_ids.get(label)
        if category_id is None:
            raise ValueError(
                f"category_ids has no {label!r}; add it, or request only the labels that it has: "
                "detect(..., labels=list(category_ids))"
            )
        bbox = [x_min, y_min, x_max - x_min, y_max - y_min]
        entry = {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}
        entries.append(entry)
    return entries


def supervision_detections(detections: Sequence[tuple[Edges, int, str, float]]) -> Any:
    """Return a `supervision.Detections`. Raises ModuleNotFoundError."""
    supervision = _needed("supervision", "to_supervision", "supervision")
    numpy = _needed("numpy", "to_supervision", "supervision")
    return supervision.Detections(
        # An array without boxes must have four columns, too.
        xyxy=numpy.array([edges for edges, *_ in detections], numpy.float32).reshape(-1, 4),
        class_id=numpy.array([class_id for _, class_id, _, _ in detections], int),
        confidence=numpy.array([score for *_, score in detections], numpy.float32),
        # The name under which supervision's annotators look for labels.
        data={"class_name": numpy.array([label for _, _, label, _ in detections], str)},
    )


def supervision_classifications(labels: Sequence[tuple[int, float]]) -> Any:
    """Return a `supervision.Classifications` of class ids and scores.

    Raises ModuleNotFoundError.
    """
    supervision = _needed("supervision", "to_supervision", "supervision")
    numpy = _needed("numpy", "to_supervision", "supervision")
    return supervision.Classifications(
        class_id=numpy.array([class_id for class_id, _ in labels], int),
        confidence=numpy.array([score for _, score in labels], numpy.float32),
    )


def pandas_frame(rows: Sequence[Row], columns: Mapping[str, str]) -> Any:
    """Return a `pandas.DataFrame`. Raises ModuleNotFoundError.

    columns: the type of each column, which a frame without rows has, too.
    """
    pandas = _needed("pandas", "to_pandas", "pandas")
    frame = pandas.DataFrame(list(rows), columns=list(columns))
    return frame.astype(dict(columns))


def _needed(module: str, method: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # It is installed, and lacks something itself.
            raise
        message = f"{method} needs {module}: pip install 'visavis[{extra}]'"
        raise ModuleNotFoundError(message, name=module) from None


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        names = (field.name for field in fields(value) if field.name != "message" or field.compare)
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, str):
        return str(value)  # A task is an enum, which some JSON libraries reject.
    return value
