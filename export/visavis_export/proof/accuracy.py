"""Measures accuracy on labelled pictures: top-1 of a classifier, mAP50-95 of a detector."""

import contextlib
import copy
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from visavis.dataset import Labelled

from visavis_export.errors import ExportError
from visavis_export.families.original import ClassifierReference, DetectorReference, Found
from visavis_export.pictures.files import read_image
from visavis_export.proof.served import ServedFile, found
from visavis_server.arrays import Image
from visavis_server.card import ModelDocument, Task
from visavis_server.vision.results import Classified, ClassifyOptions, DetectOptions, Options

# The thresholds of YOLOv5's val.py: low enough to cover the whole precision-recall curve.
_SCORE_THRESHOLD = 0.001
_IOU_THRESHOLD = 0.6
_MAX_DETECTIONS = 300

# Groups of pictures that the jackknife leaves out, one at a time.
_GROUPS = 10

Answer = Callable[[bytes, Image], int | Found]
"""Answers a picture, encoded and decoded: with the best class id, or with all detections."""


@dataclass(frozen=True, slots=True)
class Figures:
    """An accuracy in [0, 1]. without: the accuracy with each group of pictures left out."""

    value: float
    without: tuple[float, ...] = ()

    def error_of_difference(self, other: "Figures") -> float:
        """Return the standard error of the difference between two accuracies on the same pictures.

        Estimated with the jackknife: from the differences with each group left out.
        """
        if not self.without:
            return 0.0
        differences = np.subtract(self.without, other.without)
        groups = len(differences)
        squares = np.sum((differences - differences.mean()) ** 2)
        return float(np.sqrt((groups - 1) / groups * squares))


def of_original(reference: ClassifierReference | DetectorReference) -> Answer:
    """Return the PyTorch original's answers."""
    if isinstance(reference, ClassifierReference):
        classifier = reference
        return lambda encoded, image: int(classifier.probabilities(encoded).argmax())
    detector = reference

    def detections(encoded: bytes, image: Image) -> Found:
        seen = detector.look(encoded)
        if seen is None:
            raise ExportError(
                f"PyTorch's original refuses a labelled picture of {image.shape[1]} x "
                f"{image.shape[0]} pixels; remove it from the calibration pictures"
            )
        return seen.detect(_SCORE_THRESHOLD, _IOU_THRESHOLD, _MAX_DETECTIONS)

    return detections


def of_file(file: ServedFile) -> Answer:
    """Return an exported file's answers."""
    options = Options(
        ClassifyOptions(top_k=1),
        DetectOptions(
            score_threshold=_SCORE_THRESHOLD,
            iou_threshold=_IOU_THRESHOLD,
            max_detections=_MAX_DETECTIONS,
        ),
    )

    def answer(encoded: bytes, image: Image) -> int | Found:
        result = file.answer(image, options)
        if isinstance(result, Classified):
            return result.classifications[0].class_id
        return found(result)

    return answer


def measure(
    answer: Answer,
    pictures: Sequence[Labelled],
    document: ModelDocument,
    advance: Callable[[], None] = lambda: None,
) -> Figures:
    """Return the accuracy on labelled pictures; advance is called after each.

    document: the model's task and labels. Raises ExportError for class ids beyond its labels, or
    if no object is labelled.
    """
    _check_labels(pictures, document)
    answers = []
    sizes = []
    for labelled in pictures:
        encoded = labelled.path.read_bytes()
        image = read_image(labelled.path.name, encoded)
        answers.append(answer(encoded, image))
        sizes.append((image.shape[1], image.shape[0]))
        advance()
    if document.task is Task.CLASSIFICATION:
        right = np.array([a == one.truth for a, one in zip(answers, pictures, strict=True)])
        return _figures(len(pictures), lambda which: float(right[which].mean()))
    return _figures(len(pictures), _map50_95(answers, pictures, sizes))


def _figures(count: int, accuracy: Callable[[npt.NDArray[np.intp]], float]) -> Figures:
    every = np.arange(count)
    groups = min(_GROUPS, count) if count > 1 else 0
    without = tuple(accuracy(every[every % groups != group]) for group in range(groups))
    return Figures(accuracy(every), without)


def _check_labels(pictures: Sequence[Labelled], document: ModelDocument) -> None:
    classes = len(document.label_set.labels)
    used = set()
    for labelled in pictures:
        truth = labelled.truth
        used |= {truth} if isinstance(truth, int) else {one.class_id for one in truth}
    if not used:
        raise ExportError("the labels contain no objects; the accuracy can't be measured")
    if not 0 <= min(used) <= max(used) < classes:
        raise ExportError(
            f"the labels use the classes {min(used)} to {max(used)}, but {document.name} has only "
            f"0 to {classes - 1}; give labels for this model"
        )


def _truths(pictures: Sequence[Labelled], sizes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Return the labels as COCO annotations."""
    truths: list[dict[str, Any]] = []
    for index, (labelled, (width, height)) in enumerate(zip(pictures, sizes, strict=True)):
        assert isinstance(labelled.truth, tuple)
        for one in labelled.truth:
            box = [
                (one.center_x - one.width / 2) * width,
                (one.center_y - one.height / 2) * height,
                one.width * width,
                one.height * height,
            ]
            truths.append(
                {
                    "id": len(truths) + 1,
                    "image_id": index,
                    "category_id": one.class_id,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    return truths


def _results(answers: Sequence[int | Found]) -> list[dict[str, Any]]:
    """Return the answers as COCO results."""
    results: list[dict[str, Any]] = []
    for index, answer in enumerate(answers):
        assert isinstance(answer, Found)
        corners = answer.boxes.astype(np.float64)
        for xyxy, score, class_id in zip(corners, answer.scores, answer.class_ids, strict=True):
            results.append(
                {
                    "image_id": index,
                    "category_id": int(class_id),
                    "bbox": [*xyxy[:2].tolist(), *(xyxy[2:] - xyxy[:2]).tolist()],
                    "score": float(score),
                }
            )
    return results


def _map50_95(
    answers: Sequence[int | Found],
    pictures: Sequence[Labelled],
    sizes: Sequence[tuple[int, int]],
) -> Callable[[npt.NDArray[np.intp]], float]:
    """Return a function that computes COCO's mAP over IoU 0.50 to 0.95 on some of the pictures.

    It averages over all classes that occur on them. sizes: width and height of each picture.
    """
    truths, results = _truths(pictures, sizes), _results(answers)
    if not results:
        return lambda which: 0.0
    ground_truth = COCO()
    ground_truth.dataset = {
        "info": {},
        "images": [{"id": index, "width": w, "height": h} for index, (w, h) in enumerate(sizes)],
        "annotations": truths,
        "categories": [{"id": one} for one in sorted({t["category_id"] for t in truths})],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its timings
        ground_truth.createIndex()
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(results), "bbox")
        evaluation.params.maxDets = [1, 10, _MAX_DETECTIONS]
        evaluation.params.areaRng = evaluation.params.areaRng[:1]  # objects of every size
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.evaluate()
    compared = np.array(evaluation.evalImgs, dtype=object).reshape(-1, len(sizes))

    def mean_precision(which: npt.NDArray[np.intp]) -> float:
        evaluation.evalImgs = compared[:, which].ravel().tolist()
        evaluation.params.imgIds = which.tolist()
        evaluation._paramsEval = copy.deepcopy(evaluation.params)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
        precision = evaluation.eval["precision"][:, :, :, 0, 2]  # [IoU, recall, class]
        occurring = precision[precision > -1]
        return float(occurring.mean()) if occurring.size else 0.0

    return mean_precision
