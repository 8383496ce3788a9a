"""int8 variants of real models: their accuracy on pictures not used for calibration."""

from pathlib import Path

import pytest
from rich.progress import Progress
from visavis import Client
from visavis.cards import Task
from visavis.results import DetectionAgreement

from tests.conftest import serving
from visavis_export.exporter import Request, export
from visavis_export.proof.accuracy_limits import AccuracyLimits
from visavis_server.card import ModelDocument
from visavis_server.settings import Settings

# Calibration takes a minute of all cores, and shares them with other tests.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def repository(
    weights: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, ModelDocument]]:
    """Return a repository with ResNet-18 and YOLOv5n in fp32 and int8, and their documents."""
    out = tmp_path_factory.mktemp("variants")
    documents = {}
    for name, pictures in (("resnet18", "imagenet"), ("yolov5n", "coco")):
        request = Request(
            name,
            out,
            weights=str(weights),
            precisions=("fp32", "int8"),
            calibration=images / pictures,
            limits=AccuracyLimits(top1_drop=100, map_drop=100),  # the tests check the limits
        )
        for exported in export(request, Progress(disable=True)):
            documents[exported.document.name] = exported.document
    return out, documents


@pytest.mark.parametrize(
    ("name", "limit"), [("resnet18-int8", 0.5), ("yolov5n-int8", 1.0)], ids=["top-1", "mAP"]
)
def test_int8_keeps_its_accuracy_on_other_pictures(
    name: str, limit: float, repository: tuple[Path, dict[str, ModelDocument]]
) -> None:
    _, documents = repository
    accuracy = documents[name].accuracy
    assert accuracy is not None
    assert accuracy.held_out
    assert accuracy.original > 0.3
    drop = (accuracy.original - accuracy.value) * 100
    # Subtract the standard error, which is of the same size with about a hundred pictures.
    assert drop - accuracy.error * 100 < limit


@pytest.mark.parametrize("name", ["resnet18", "yolov5n"])
def test_the_fp32_file_is_as_accurate_as_its_original(
    name: str, repository: tuple[Path, dict[str, ModelDocument]]
) -> None:
    accuracy = repository[1][name].accuracy
    assert accuracy is not None
    assert accuracy.value == pytest.approx(accuracy.original, abs=0.002)


def test_a_variant_is_served_and_compared_with_its_original(
    repository: tuple[Path, dict[str, ModelDocument]], images: Path
) -> None:
    settings = Settings(models=repository[0], grpc="127.0.0.1:0", device="cpu")
    with serving(settings) as client:
        card = client.get_model("yolov5n-int8")
        assert (card.precision, card.variant_of) == ("int8", "yolov5n")
        assert card.verification.golden_sample
        assert card.accuracy is not None
        _agrees(client, images)


def _agrees(client: Client, images: Path) -> None:
    compared = client.compare(images / "bus.jpg", baseline="yolov5n", tasks=[Task.DETECTION])
    (detection,) = compared.comparisons
    (variant,) = [a for a in detection.answers if a.served_by.model == "yolov5n-int8"]
    assert isinstance(variant.agreement, DetectionAgreement)
    assert variant.agreement.f1 > 0.8
