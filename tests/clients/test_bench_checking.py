from visavis.bench.checking import difference, from_limit, read
from visavis.bench.workload import Call
from visavis.v1 import vision_pb2 as pb

from . import canned

CLASSIFY = Call("classify", "a.jpg", ("resnet50",), b"")
DETECT = Call("detect", "a.jpg", ("yolov5n",), b"")
COMPARE = Call("compare", "a.jpg", (), b"")


def classified(*pairs: tuple[str, float], total_ms: float = 1.0) -> bytes:
    return pb.ClassifyResponse(
        classifications=canned.labels(*pairs),
        served_by=canned.served_by("resnet50"),
        timings=pb.Timings(total_ms=total_ms),
    ).SerializeToString()


def detected(score: float, x_min: float) -> bytes:
    return pb.DetectResponse(
        detections=canned.boxes(("bus", score, (x_min, 10, 100, 100))),
        served_by=canned.served_by("yolov5n"),
    ).SerializeToString()


def found(call: Call, expected: bytes, given: bytes) -> str:
    return difference(read(call, expected), read(call, given))


def test_timings_are_ignored():
    bus = ("bus", 0.9)
    assert found(CLASSIFY, classified(bus), classified(bus, total_ms=99)) == ""


def test_differing_label_score_and_number_are_found():
    expected = classified(("bus", 0.9), ("cab", 0.1))
    assert found(CLASSIFY, expected, classified(("bus", 0.9), ("tram", 0.1))) == (
        "resnet50: rank 2 is 'tram' instead of 'cab'"
    )
    assert "scores 0.892" in found(CLASSIFY, expected, classified(("bus", 0.892), ("cab", 0.1)))
    assert "1 labels or boxes instead of 2" in found(CLASSIFY, expected, classified(("bus", 0.9)))
    nan = classified(("bus", float("nan")), ("cab", 0.1))
    assert "scores nan" in found(CLASSIFY, expected, nan)


def test_boxes_may_differ_by_one_pixel():
    assert found(DETECT, detected(0.8, 20), detected(0.8, 20.9)) == ""
    assert "the box of 'bus'" in found(DETECT, detected(0.8, 20), detected(0.8, 21.5))


def test_comparison_is_checked_by_model_failures_included():
    whole = canned.comparison()
    expected = read(COMPARE, whole.SerializeToString())
    assert expected.keys() == {
        "resnet50",
        "resnet18",
        "yolov5n-cls",
        "yolov5n",
        "yolov5s",
        "yolov5x",
    }
    assert expected["yolov5x"] == "internal error"
    whole.comparisons[1].answers[1].detections[0].label = "cat"
    assert difference(expected, read(COMPARE, whole.SerializeToString())).startswith("yolov5s: ")
    del whole.comparisons[0]
    assert "answered instead of" in difference(expected, read(COMPARE, whole.SerializeToString()))


def test_answer_of_the_limit_is_comparable_to_a_served_one():
    limit = {"yolov5n": [{"label": "bus", "score": 0.8, "box": [20, 10, 100, 100]}]}
    assert difference(from_limit(limit), read(DETECT, detected(0.8, 20))) == ""
    limit["yolov5n"][0]["score"] = 0.9
    assert difference(from_limit(limit), read(DETECT, detected(0.8, 20)))
