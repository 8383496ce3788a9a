"""Names of label sets."""

import re

from server.labels import name_of_label_set


def test_imagenet_is_recognised_however_its_names_are_spelt() -> None:
    torchvision = ("tench", *(f"class {i}" for i in range(998)), "toilet tissue")
    ultralytics = ("Tench", *(f"Class_{i}" for i in range(998)), "toilet_paper")
    assert name_of_label_set(torchvision) == name_of_label_set(ultralytics) == "imagenet-1k"


def test_coco_is_recognised() -> None:
    assert name_of_label_set(("person", *map(str, range(78)), "toothbrush")) == "coco-80"


def test_a_set_of_the_same_size_is_not_taken_for_a_known_one() -> None:
    assert name_of_label_set(tuple(map(str, range(80)))).startswith("custom-")


def test_a_custom_set_is_named_after_its_labels_in_their_order() -> None:
    name = name_of_label_set(("cat", "dog"))
    assert re.fullmatch("custom-[0-9a-f]{8}", name)
    assert name == name_of_label_set(("cat", "dog"))
    assert len({name, name_of_label_set(("dog", "cat")), name_of_label_set(("cat",))}) == 3
