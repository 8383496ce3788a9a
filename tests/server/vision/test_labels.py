"""Names of label sets."""

import re

import pytest
from visavis.dataset import names

from visavis_server.vision import labels
from visavis_server.vision.labels import comparable, name_of_label_set, read_labels


def test_imagenet_is_recognised_in_any_spelling() -> None:
    torchvision = ("tench", *(f"class {i}" for i in range(998)), "toilet tissue")
    ultralytics = ("Tench", *(f"Class_{i}" for i in range(998)), "toilet_paper")
    assert name_of_label_set(torchvision) == name_of_label_set(ultralytics) == "imagenet-1k"


def test_coco_is_recognised() -> None:
    assert name_of_label_set(("person", *map(str, range(78)), "toothbrush")) == "coco-80"


def test_a_set_of_the_same_size_is_not_taken_for_a_known_one() -> None:
    assert name_of_label_set(tuple(map(str, range(80)))).startswith("custom-")


def test_a_custom_set_is_named_after_its_labels_and_their_order() -> None:
    name = name_of_label_set(("cat", "dog"))
    assert re.fullmatch("custom-[0-9a-f]{8}", name)
    assert name == name_of_label_set(("cat", "dog"))
    assert len({name, name_of_label_set(("dog", "cat")), name_of_label_set(("cat",))}) == 3


@pytest.mark.parametrize(
    "names",
    [
        ["cat", "7", "cat"],
        ("cat", 7, "cat"),
        {2: "cat", 0: "cat", 1: 7},
        {"0": "cat", "2": "cat", "1": "7"},
        {0: "cat", "1": "7", 2: "cat"},
    ],
    ids=repr,
)
def test_names_are_read_by_class_id_and_may_repeat(names: object) -> None:
    assert read_labels(names) == ("cat", "7", "cat")


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ({1: "cat", 2: "dog"}, "from 1 to 2, but 0 is missing"),
        ({0: "cat", 2: "dog"}, "from 0 to 2, but 1 is missing"),
        ({-1: "cat", 0: "dog"}, "from -1 to 0, but 1 is missing"),
        ({0: "cat", "0": "dog"}, "class 0 has two names"),
        ({"cat": 0, "dog": 1}, "'cat' is not a class id"),
        ({0.0: "cat"}, "'0.0' is not a class id"),
        ({False: "cat"}, "'False' is not a class id"),
        ({"٠": "cat"}, "is not a class id"),
        ({0: "cat", 1: None}, "class 1 is not text"),
        ({0: ""}, "class 0 has 0 characters"),
        ({}, "there are no class names"),
        ([], "there are no class names"),
        ("cat", "must be a list or a dict, not str"),
        (None, "must be a list or a dict, not NoneType"),
    ],
    ids=repr,
)
def test_invalid_names_are_refused_with_the_class(names: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_labels(names)


def test_as_many_classes_as_allowed_are_read_and_no_more() -> None:
    assert len(read_labels(["cat"] * 32_768)) == 32_768
    with pytest.raises(ValueError, match="there are 32769 class names; the limit is 32768"):
        read_labels(["cat"] * 32_769)


@pytest.mark.parametrize("name", ["a" * 256, (1 << 128) - 1, -1.5])
def test_the_longest_names_and_numbers_are_read(name: object) -> None:
    assert read_labels([name]) == (str(name),)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a" * 257, "class 0 has 257 characters"),
        (1 << 128, "class 0 has 0 characters"),
        ("a\x1b[31m", "class 0 has control characters"),
        ("a\n", "class 0 has control characters"),
        ("\ud800", "class 0 has control characters"),
    ],
    ids=ascii,
)
def test_names_that_no_answer_can_carry_are_refused(name: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_labels([name])


@pytest.mark.parametrize(("first", "last"), [("cat", "toilet tissue"), ("tench", "cat")])
def test_first_and_last_label_make_a_known_set(first: str, last: str) -> None:
    labels = (first, *map(str, range(998)), last)
    assert name_of_label_set(labels).startswith("custom-")


def test_names_are_compared_by_the_same_rule_as_in_the_sdk() -> None:
    every = {*names._SAME, *names._SAME.values(), "Café_au-lait", " TV  Monitor", "N/A", "a/b c"}
    every |= {"カラス", "ガラス", "йод", "टमाटर"}
    assert {name: comparable(name) for name in every} == {
        name: names.comparable(name) for name in every
    }
    assert labels._SAME == names._SAME
