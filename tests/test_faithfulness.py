"""Compares served answers with the PyTorch originals, on real pictures, over a real channel."""

import contextlib
import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image as PillowImage
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from visavis import Client

from visavis_export.checkpoints.checkpoint import read_state_dict, read_yolo_checkpoint
from visavis_export.families.original import DetectorReference
from visavis_export.families.yolov5 import build_yolov5, letterboxed
from visavis_server.card import Provenance

# ultralytics/yolov5's own detections with the fixed-square letterbox at 640, score 0.25, IoU
# 0.45: (label, score).
PUBLISHED = {
    "bus.jpg": [
        ("person", 0.803),
        ("person", 0.801),
        ("bus", 0.673),
        ("person", 0.643),
        ("person", 0.286),
    ],
    "zidane.jpg": [("person", 0.760), ("person", 0.706), ("tie", 0.354), ("person", 0.276)],
}


@pytest.fixture(scope="session")
def yolov5n(weights: Path) -> DetectorReference:
    checkpoint = read_yolo_checkpoint(weights / "yolov5n.pt")
    provenance = Provenance(weights_source="test", exporter="test")
    reference = build_yolov5("yolov5n", checkpoint, None, provenance, None).reference
    assert isinstance(reference, DetectorReference)
    return reference


@pytest.mark.parametrize("name", PUBLISHED)
def test_detections_equal_the_originals(
    name: str, images: Path, real_client: Client, yolov5n: DetectorReference
) -> None:
    found = real_client.detect(images / name, model="yolov5n").detections
    assert [d.label for d in found] == [label for label, _ in PUBLISHED[name]]
    for detection, (_, score) in zip(found, PUBLISHED[name], strict=True):
        assert detection.score == pytest.approx(score, abs=1e-3)
    original = yolov5n.look((images / name).read_bytes()).detect(0.25, 0.45)
    boxes = [(d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max) for d in found]
    assert np.abs(np.array(boxes) - original.boxes).max() < 1.0


def test_the_rebuilt_yolov5_equals_the_original_projects_export(
    weights: Path, images: Path, yolov5n: DetectorReference
) -> None:
    import onnxruntime as ort

    path = weights.parent / "reference" / "yolov5n.onnx"
    if not path.is_file():
        pytest.skip("needs the original project's own export, ../reference/yolov5n.onnx")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for name in PUBLISHED:
        encoded = (images / name).read_bytes()
        picture = np.asarray(PillowImage.open(io.BytesIO(encoded)).convert("RGB"))
        image = letterboxed(picture, 640).transpose(2, 0, 1)[None].astype(np.float32) / 255
        (rows,) = session.run(["output0"], {"images": image})
        seen = yolov5n.look(encoded).candidates
        scores = rows[0, :, 5:] * rows[0, :, 4:5]
        assert np.abs(scores.max(1) - seen.scores).max() < 1e-4
        center, size = rows[0, :, :2], rows[0, :, 2:4]
        assert np.abs(np.hstack((center - size / 2, center + size / 2)) - seen.boxes).max() < 0.05


def test_top_1_equals_torchvisions_on_200_imagenet_pictures(
    weights: Path, images: Path, real_client: Client
) -> None:
    module = torchvision.models.resnet50()
    module.load_state_dict(read_state_dict(weights / "resnet50.pth"))
    module.eval()
    transform = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    with (images / "imagenet" / "labels.csv").open() as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert len(names) == 200
    same, largest = 0, 0.0
    for name in names:
        path = images / "imagenet" / name
        with torch.inference_mode():
            picture = PillowImage.open(path).convert("RGB")
            original = module(transform(picture)[None]).softmax(1)[0].numpy()
        best = real_client.classify(path, model="resnet50").classifications
        same += best[0].class_id == int(original.argmax())
        largest = max(largest, *(abs(c.score - original[c.class_id]) for c in best))
    assert same >= 199
    assert largest < 1e-3


def test_map_equals_the_originals_on_128_coco_pictures(
    images: Path, real_client: Client, yolov5n: DetectorReference
) -> None:
    paths = sorted((images / "coco" / "images" / "train2017").glob("*.jpg"))
    assert len(paths) == 128
    truth = _ground_truth(paths, images / "coco" / "labels" / "train2017")
    served, original = [], []
    for index, path in enumerate(paths):
        answer = real_client.detect(
            path, model="yolov5n", score_threshold=0.001, iou_threshold=0.6, max_detections=300
        )
        for d in answer.detections:
            box = (d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max)
            served.append(_prediction(index, d.class_id, box, d.score))
        found = yolov5n.look(path.read_bytes()).detect(0.001, 0.6)
        for box, score, class_id in zip(found.boxes, found.scores, found.class_ids, strict=True):
            original.append(_prediction(index, int(class_id), tuple(box.tolist()), float(score)))
    ours, theirs = _map(truth, served), _map(truth, original)
    assert theirs > 0.3  # published for these pictures: 0.335
    assert ours == pytest.approx(theirs, abs=0.002)


def _ground_truth(paths: list[Path], labels: Path) -> COCO:
    annotations = []
    sizes = []
    for index, path in enumerate(paths):
        with PillowImage.open(path) as picture:
            width, height = picture.size
        sizes.append({"id": index, "width": width, "height": height})
        file = labels / f"{path.stem}.txt"
        for line in file.read_text().splitlines() if file.exists() else []:
            class_id, cx, cy, w, h = map(float, line.split())
            box = [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": int(class_id),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": sizes,
        "annotations": annotations,
        "categories": [{"id": i} for i in range(80)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def _prediction(
    image: int, class_id: int, box: tuple[float, ...], score: float
) -> dict[str, object]:
    x_min, y_min, x_max, y_max = box
    return {
        "image_id": image,
        "category_id": class_id,
        "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
        "score": score,
    }


def _map(truth: COCO, predictions: list[dict[str, object]]) -> float:
    """Return mAP50-95, computed by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(predictions), "bbox")
        evaluation.params.maxDets = [1, 10, 300]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    return float(precision[precision > -1].mean())
