"""The list of models has every name, and the sizes that torchvision gives."""

import pytest
from torchvision.models import get_model_weights

from visavis_export.families import resnet, torchvision_detectors, yolov5, yolov5u
from visavis_export.listing import NAMES, PARAMETERS, listing

_MILLIONS = {name: size for sizes in PARAMETERS.values() for name, size in sizes.items()}


def test_every_model_is_listed_once() -> None:
    yolos = (*yolov5.DETECTORS, *yolov5.CLASSIFIERS, *yolov5u.NAMES)
    assert sorted(NAMES) == sorted([*resnet.NAMES, *yolos, *torchvision_detectors.NAMES])
    text = "\n".join(listing())
    assert all(name in text for name in NAMES)


@pytest.mark.parametrize("name", [name for name in _MILLIONS if "resnet" in name])
def test_sizes_are_those_that_torchvision_documents(name: str) -> None:
    (documented, *_) = [weights.meta["num_params"] for weights in get_model_weights(name)]
    assert _MILLIONS[name] == pytest.approx(documented / 1e6, abs=0.06)
