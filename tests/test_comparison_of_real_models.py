"""Compare over four models: real ones on real pictures where they are given."""

import io

from PIL import Image as PillowImage
from visavis import Client, Comparison, StreamedAnswer

from tests.samples import Samples


def test_four_models_are_laid_side_by_side(samples: Samples, sample_client: Client) -> None:
    comparison = sample_client.compare(samples.bus, baseline="resnet50", annotate=True)
    classification, detection = comparison.message.comparisons
    names = [answer.served_by.model for answer in classification.answers]
    assert names == ["resnet18", "resnet50", "yolov5n-cls"]
    assert classification.baseline == "resnet50"
    by_name = {answer.served_by.model: answer for answer in classification.answers}
    assert by_name["resnet18"].classification_agreement.same_top1
    assert by_name["yolov5n-cls"].served_by.random_weights
    assert not by_name["resnet50"].HasField("classification_agreement")
    assert by_name["resnet50"].classifications[0].label == samples.best
    assert "nothing to compare with" in detection.nothing_to_compare
    picture = PillowImage.open(io.BytesIO(comparison.message.annotated_image.encoded))
    assert picture.width > picture.height


def test_one_request_is_answered_alike_by_compare_stream_and_alone(
    samples: Samples, sample_client: Client
) -> None:
    picture = samples.zidane
    *answers, summary = sample_client.compare_stream(picture)
    assert isinstance(summary, Comparison)
    assert len(answers) == 4
    assert all(isinstance(answer, StreamedAnswer) for answer in answers)
    compared = sample_client.compare(picture)
    alone = sample_client.detect(picture, model="yolov5n")
    detections = summary.message.comparisons[1].answers[0].detections
    assert list(detections) == list(compared.message.comparisons[1].answers[0].detections)
    assert list(detections) == list(alone.message.detections)
