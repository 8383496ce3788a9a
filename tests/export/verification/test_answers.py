"""Boxes and labels that other code gave are explained; rounded right ones are the same."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from visavis_export.errors import ExportError
from visavis_export.families.original import upright
from visavis_export.families.yolov5 import letterboxed
from visavis_export.verification.answers import Given, read_answers

from .conftest import PICTURES, Exported

pytestmark = pytest.mark.filterwarnings("ignore")
PICTURE = "synthetic wide"


@pytest.fixture(scope="module")
def predicted(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return ultralytics' own answers as JSON: of the .onnx file, and of a rectangle."""
    import ultralytics

    folder = tmp_path_factory.mktemp("predicted")
    path = folder / "picture.png"
    path.write_bytes(_png(PICTURES[PICTURE]))
    answers = {}
    for name, file, rect in (
        ("square", exported.file, False),
        ("rectangle", exported.checkpoint, True),
    ):
        model = ultralytics.YOLO(str(file), task="detect")
        (result,) = model.predict(str(path), imgsz=320, rect=rect, verbose=False, device="cpu")
        answers[name] = result.to_json()
    return answers


def _png(encoded: bytes) -> bytes:
    picture = np.asarray(upright(encoded))
    return bytes(cv2.imencode(".png", picture[..., ::-1])[1])


def mistakes(exported: Exported, cache: Path, given: Given) -> list[str]:
    outcome = exported.about(cache, answers=given)
    assert outcome.file_is_same
    assert outcome.theirs is not None
    return [one.mistake for one in outcome.theirs]


def given(text: str, folder: Path, change: Any = lambda rows: rows) -> Given:
    rows = change(json.loads(text))
    path = folder / "answers.json"
    path.write_text(json.dumps(rows))
    return read_answers(path)


def test_ultralytics_own_answers_of_the_file_are_the_same(
    exported: Exported, predicted: dict[str, str], tmp_path: Path
) -> None:
    assert len(json.loads(predicted["square"])) > 5
    assert mistakes(exported, tmp_path, given(predicted["square"], tmp_path)) == []


def test_rectangular_inference_is_named(
    exported: Exported, predicted: dict[str, str], tmp_path: Path
) -> None:
    """The most frequent complaint: predict() pads to a rectangle for the .pt, not for the file."""
    assert mistakes(exported, tmp_path, given(predicted["rectangle"], tmp_path)) == ["rectangle"]


def moved(scale: float, offset: float) -> Any:
    def change(rows: Any) -> Any:
        for row in rows:
            for key in row["box"]:
                row["box"][key] = row["box"][key] * scale + (offset if key[0] == "y" else 0)
        return rows

    return change


def as_fractions(rows: Any) -> Any:
    for row in rows:
        box = row["box"]
        row["box"] = [box["x1"] / 1280, box["y1"] / 320, box["x2"] / 1280, box["y2"] / 320]
    return rows


def as_centres(rows: Any) -> Any:
    for row in rows:
        b = row["box"]
        row["box"] = [
            (b["x1"] + b["x2"]) / 2,
            (b["y1"] + b["y2"]) / 2,
            b["x2"] - b["x1"],
            b["y2"] - b["y1"],
        ]
    return rows


def counted_from_one(rows: Any) -> Any:
    return [
        {"class_id": row["class"] + 1, "score": row["confidence"], "box": row["box"]}
        for row in rows
    ]


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        # 1280 x 320 in a square of 320: a scale of a quarter, and 120 pixels above.
        (moved(0.25, 120), "boxes of the input"),
        (moved(1, 480), "padding kept"),
        (as_fractions, "boxes as fractions"),
        (as_centres, "centre and size"),
        (counted_from_one, "class ids"),
        (lambda rows: rows[: len(rows) // 2], "score threshold"),
        (
            lambda rows: [{**row, "confidence": 1 - row["confidence"]} for row in rows],
            "other answers",
        ),
    ],
)
def test_what_is_wrong_with_boxes_is_named(
    exported: Exported, predicted: dict[str, str], tmp_path: Path, change: Any, mistake: str
) -> None:
    assert mistakes(exported, tmp_path, given(predicted["square"], tmp_path, change)) == [mistake]


def test_answers_on_a_stretched_picture_are_named(exported: Exported, tmp_path: Path) -> None:
    """From the original's own network, run by ultralytics on a stretched picture."""
    import torch

    module = torch.load(exported.checkpoint, weights_only=False)["model"].float().eval()
    picture = np.asarray(upright(PICTURES[PICTURE]))
    stretched = cv2.resize(picture, (320, 320)).transpose(2, 0, 1)[None].astype(np.float32) / 255
    assert not np.array_equal(stretched[0], letterboxed(picture, 320).transpose(2, 0, 1) / 255)
    with torch.inference_mode():
        from ultralytics.utils.nms import non_max_suppression

        rows = module(torch.from_numpy(stretched))
        rows = rows[0] if isinstance(rows, tuple) else rows
        (found,) = non_max_suppression(rows, 0.25, 0.7)
    scale = np.array([1280 / 320, 1, 1280 / 320, 1], np.float32)
    theirs = found.numpy()
    answers = Given(tuple(int(k) for k in theirs[:, 5]), theirs[:, 4], theirs[:, :4] * scale)
    assert len(theirs) > 5
    assert mistakes(exported, tmp_path, answers) == ["stretched"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "is not JSON"),
        ("3", "must hold a list"),
        ('[{"score": 1}]', "entry 0 needs a label"),
        ('[{"label": "a", "score": true}]', "entry 0 needs a label"),
        ('[{"label": "a", "score": 1, "box": [1, 2]}]', "entry 0 needs a label"),
        (
            '[{"label": "a", "score": 1, "box": [1, 2, 3, 4]}, {"label": "a", "score": 1}]',
            "others none",
        ),
    ],
)
def test_answers_that_cannot_be_read_are_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "answers.json"
    path.write_text(text)
    with pytest.raises(ExportError, match=why):
        read_answers(path)
