"""How much accuracy an exported file may lose."""

from pathlib import Path

import pytest
from visavis.dataset import Labelled

from tests.server import graphs
from visavis_export.errors import AccuracyFailed
from visavis_export.pictures.labelled import Pictures
from visavis_export.proof.accuracy import Figures
from visavis_export.proof.accuracy_limits import (
    AccuracyLimits,
    check_baseline,
    enforce,
    warnings_for,
)
from visavis_server.card import Accuracy, ModelDocument


def test_a_lower_accuracy_fails_only_beyond_what_chance_explains() -> None:
    measured = Accuracy(
        metric="mAP50-95",
        value=0.30,
        original=0.32,
        error=0.005,
        pictures=100,
        source="100 of 200 pictures",
        held_out=True,
    )
    enforce("boxes", measured, AccuracyLimits(map_drop=1.6))
    with pytest.raises(
        AccuracyFailed, match=r"boxes loses 2\.00 ± 0\.50 points of mAP50-95; the limit"
    ):
        enforce("boxes", measured, AccuracyLimits(map_drop=1.4))


def pictures(count: int) -> Pictures:
    labelled = tuple(Labelled(Path(f"{index}.jpg"), 0) for index in range(count))
    return Pictures("street", count, (), labelled)


# The classifier of the tests knows three colours: chance is a third.
@pytest.mark.parametrize(
    ("document", "count", "value"),
    [
        (graphs.classifier_document(), 100, 0.40),
        (graphs.classifier_document(), 1000, 0.36),
        (graphs.detector_document(), 128, 0.0),
        (graphs.detector_document(), 128, 0.009),
    ],
)
def test_an_original_no_better_than_chance_is_no_baseline(
    document: ModelDocument, count: int, value: float
) -> None:
    with pytest.raises(AccuracyFailed, match=f"{value:.2%} .* on {count} pictures of street, no"):
        check_baseline(Figures(value), pictures(count), document)


@pytest.mark.parametrize(
    ("document", "count", "value"),
    [
        (graphs.classifier_document(), 100, 0.45),
        (graphs.classifier_document(), 3, 0.34),
        (graphs.classifier_document(), 1, 1.0),
        (graphs.detector_document(), 128, 0.02),
        (graphs.detector_document(), 3, 0.02),
    ],
)
def test_an_original_better_than_chance_is_a_baseline(
    document: ModelDocument, count: int, value: float
) -> None:
    assert check_baseline(Figures(value), pictures(count), document) == ""


@pytest.mark.parametrize(
    ("document", "count", "value"),
    [
        (graphs.classifier_document(), 9, 0.0),
        (graphs.classifier_document(), 3, 1 / 3),
        (graphs.detector_document(), 3, 0.0),
    ],
)
def test_on_a_few_pictures_an_original_no_better_than_chance_is_no_failure(
    document: ModelDocument, count: int, value: float
) -> None:
    why = check_baseline(Figures(value), pictures(count), document)
    assert f"reaches {value:.2%}" in why
    assert f"on {count} pictures of street, no more than chance; this is too few" in why


def test_int8_warns_of_too_few_pictures_and_missing_labels() -> None:
    document = graphs.classifier_document()
    files = tuple(Path(f"{index}.jpg") for index in range(64))
    few = Pictures("street", 3, files[:1], ())
    ranges, labels = warnings_for("int8", few, document)
    assert ranges.startswith("the int8 ranges come from only 1 of 3 pictures")
    assert "the 3 pictures have no labels; give them with --labels" in labels
    assert warnings_for("fp16", few, document) == ()
    assert (
        warnings_for("int8", Pictures("street", 64, files[:32], pictures(64).accuracy), document)
        == ()
    )


def test_an_accuracy_on_a_few_pictures_gives_a_warning() -> None:
    accuracy = Accuracy(
        metric="top-1", value=1, original=1, error=0, pictures=9, source="street", held_out=True
    )
    document = graphs.classifier_document(accuracy=accuracy)
    (warning,) = warnings_for("fp32", pictures(9), document)
    assert warning.startswith("the accuracy was measured on only 9 labelled pictures")
