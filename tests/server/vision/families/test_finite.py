"""NaN and infinity never reach an answer."""

import numpy as np
import pytest

from visavis_server.card import CandidateRows
from visavis_server.errors import ModelFailed
from visavis_server.vision.families import family_of
from visavis_server.vision.families.detector import Detector
from visavis_server.vision.families.finite import require_finite
from visavis_server.vision.results import ClassifyOptions

from ... import graphs

BAD = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_single_nan_or_infinity_is_found(bad: float, dtype: type) -> None:
    values = np.full((3, 100_000), 1, dtype)  # float16 alone would overflow in the sum
    require_finite(values)
    values[1, 5000] = bad
    with pytest.raises(ModelFailed, match="NaN or infinity"):
        require_finite(values)


@pytest.mark.parametrize("bad", BAD)
def test_a_classifier_refuses_them(bad: float) -> None:
    family = family_of(graphs.classifier_document())
    with pytest.raises(ModelFailed):
        family.postprocess([np.array([[0, bad, 1]], np.float32)], None, ClassifyOptions())


@pytest.mark.parametrize("bad", BAD)
def test_a_detector_refuses_them_in_its_rows(bad: float) -> None:
    document = graphs.detector_document()
    assert isinstance(document.output, CandidateRows)
    rows = graphs.ROWS.astype(np.float32)
    rows[0, 0, 2] = bad
    with pytest.raises(ModelFailed):
        Detector(document).candidates([rows], 0.25)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("channel", [0, 4, 5])
def test_heads_refuse_them_in_objectness_and_in_every_cell_that_is_read(
    bad: float, channel: int
) -> None:
    detector = Detector(graphs.detector_document(output=graphs.yolov5_heads(scales=1)))
    cells = np.full((1, 14, 8, 8), -9, np.float32)
    cells[0, 4, 2, 3] = 9  # one cell is read
    assert len(detector.candidates(graphs.split_heads([cells]), 1e-5).scores) == 1
    cells[0, channel, 2, 3] = bad
    with np.errstate(invalid="ignore"), pytest.raises(ModelFailed):
        detector.candidates(graphs.split_heads([cells]), 1e-5)
