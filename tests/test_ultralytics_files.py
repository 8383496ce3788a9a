"""Serves files exported by ultralytics from their metadata; compares with its predictor."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from visavis import Client

from tests.conftest import serving
from visavis_export.families import random_weights
from visavis_export.families.random_weights import Spread
from visavis_export.families.yolov5 import letterboxed_pictures
from visavis_export.families.yolov5u import _spreads
from visavis_export.pictures.synthetic import synthetic_pictures
from visavis_server.settings import Settings

# ultralytics' export emits warnings.
pytestmark = pytest.mark.filterwarnings("ignore")

# Common exports: (yaml, arguments).
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "yolov5nu": ("yolov5nu.yaml", {}),
    "yolo11n-any-size": ("yolo11n.yaml", {"dynamic": True}),
    "yolo11n-wide": ("yolo11n.yaml", {"imgsz": (320, 640)}),
    "yolov8n-with-nms": ("yolov8n.yaml", {"nms": True}),
    "yolov8n-cls": ("yolov8n-cls.yaml", {"imgsz": 224}),
}
PICTURES = ("synthetic wide", "synthetic tall", "synthetic odd", "synthetic huge")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with unmodified files exported by ultralytics."""
    folder = tmp_path_factory.mktemp("ultralytics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_AUTOINSTALL", "false")
        patch.setenv("YOLO_OFFLINE", "true")
        patch.setenv("YOLO_CONFIG_DIR", str(folder))
        patch.chdir(folder)
        import ultralytics

        images = letterboxed_pictures()
        for name, (yaml, arguments) in FILES.items():
            random_weights.seed()
            model = ultralytics.YOLO(yaml)
            module = model.model.eval()
            if "cls" in name:
                # Or every picture would have the same answer: a thousandth for each class.
                head, classes = module.model[-1].linear, 1000
                spread = Spread(head, torch.zeros(classes), torch.full((classes,), 6.0))
                pictures = random_weights.images(lambda picture: picture.resize((224, 224)))
                random_weights.calibrate(module, [spread], pictures)
            else:
                random_weights.calibrate(module, _spreads(module), images)
                module.names = {i: f"thing {i}" for i in range(80)}
            path = Path(model.export(format="onnx", simplify=False, **arguments))
            target = folder / "models" / name / "1" / "model.onnx"
            target.parent.mkdir(parents=True)
            path.rename(target)
    return folder / "models"


@pytest.fixture(scope="module")
def client(repository: Path) -> Iterator[Client]:
    with serving(Settings(models=repository, grpc="127.0.0.1:0", device="cpu")) as client:
        yield client


@pytest.mark.parametrize("name", [name for name in FILES if "cls" not in name])
def test_a_detectors_answers_equal_ultralytics_predictions(
    name: str, client: Client, repository: Path, tmp_path: Path
) -> None:
    for picture in PICTURES:
        path = tmp_path / "picture.png"
        path.write_bytes(synthetic_pictures()[picture])
        (predicted,) = _predict(repository / name, path, "detect")
        expected = predicted.boxes.data.numpy()
        found = client.detect(path, model=name).detections
        # Random weights give many boxes; a few of them lie at a threshold.
        assert abs(len(found) - len(expected)) <= 2
        assert len(expected) > 5
        ours = np.array(
            [
                [d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max, d.score * 1e3, d.class_id]
                for d in found
            ]
        )
        theirs = expected * [1, 1, 1, 1, 1e3, 1]
        nearest = np.abs(theirs[:, None] - ours[None]).max(2).min(1)
        assert (nearest < 1.0).sum() >= len(expected) - 2


def test_a_classifiers_answers_equal_ultralytics_predictions(
    client: Client, repository: Path, tmp_path: Path
) -> None:
    best = set()
    for picture in PICTURES:
        path = tmp_path / "picture.png"
        path.write_bytes(synthetic_pictures()[picture])
        (predicted,) = _predict(repository / "yolov8n-cls", path, "classify")
        expected = predicted.probs.data.numpy()
        found = client.classify(path, model="yolov8n-cls", top_k=1000).classifications
        assert len(found) == len(expected) == 1000
        for label in found:
            assert label.score == pytest.approx(expected[label.class_id], abs=1e-3)
        best.add(found[0].class_id)
        assert found[0].score > 0.02
    assert len(best) > 1


def test_the_card_has_the_files_metadata_and_no_verification(client: Client) -> None:
    card = client.get_model("yolov5nu").message
    assert card.facts.architecture == "YOLOv5nu"
    assert card.facts.organization == "Ultralytics"
    assert card.label_set.labels[3] == "thing 3"
    assert card.detection_defaults.iou_threshold == pytest.approx(0.7)
    assert not card.verification.digest
    assert not card.verification.golden_sample
    assert not card.HasField("receipt")


def _predict(model: Path, picture: Path, task: str) -> Any:
    import ultralytics

    predictor = ultralytics.YOLO(str(model / "1" / "model.onnx"), task=task)
    return predictor.predict(str(picture), verbose=False, device="cpu", rect=False)
