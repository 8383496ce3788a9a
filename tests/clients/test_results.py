import dataclasses

import pytest
from visavis import cards, results
from visavis.v1 import vision_pb2 as pb

PAIRS = [
    (results.Box, pb.BoundingBox),
    (results.Classification, pb.Classification),
    (results.HeatMap, pb.HeatMap),
    (results.Detection, pb.Detection),
    (results.ServedBy, pb.ServedBy),
    (results.Timings, pb.Timings),
    (results.ImageSize, pb.ImageSize),
    (results.AnnotatedImage, pb.AnnotatedImage),
    (results.ClassifyResult, pb.ClassifyResponse),
    (results.DetectResult, pb.DetectResponse),
    (results.AnswerStatus, pb.AnswerStatus),
    (results.ClassificationAgreement, pb.ClassificationAgreement),
    (results.DetectionMatch, pb.DetectionMatch),
    (results.DetectionAgreement, pb.DetectionAgreement),
    (results.TaskComparison, pb.TaskComparison),
    (results.LeftOutModel, pb.LeftOutModel),
    (results.Comparison, pb.CompareResponse),
    (results.StreamedAnswer, pb.StreamedAnswer),
    (cards.ModelFacts, pb.ModelFacts),
    (cards.LabelSet, pb.LabelSet),
    (cards.ModelInput, pb.ModelInput),
    (cards.DetectionDefaults, pb.DetectionDefaults),
    (cards.Provenance, pb.Provenance),
    (cards.Verification, pb.Verification),
    (cards.RowComparison, pb.RowComparison),
    (cards.ReceiptPicture, pb.ReceiptPicture),
    (cards.Receipt, pb.Receipt),
    (cards.Model, pb.Model),
]


@pytest.mark.parametrize(("kind", "message"), PAIRS, ids=lambda kind: kind.__name__)
def test_typed_value_has_every_field_of_its_message(kind: type, message: type):
    ours = {field.name for field in dataclasses.fields(kind)} - {"code", "message"}
    theirs = {field.name for field in message.DESCRIPTOR.fields} - {"code", "message"}
    assert ours == theirs


def test_every_task_of_the_protocol_has_a_name():
    assert set(cards.TASKS) == set(pb.Task.values()) - {pb.TASK_UNSPECIFIED}


def test_annotated_picture_is_saved_unchanged(tmp_path):
    picture = results.AnnotatedImage(b"\xff\xd8drawn", "image/jpeg")
    picture.save(tmp_path / "bus.jpg")
    assert (tmp_path / "bus.jpg").read_bytes() == b"\xff\xd8drawn"
