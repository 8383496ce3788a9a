"""Names in errors, which may be a stranger's."""

from visavis_server.errors import correction, listed


def test_names_are_listed_in_order_or_there_are_none() -> None:
    assert listed(["b", "a"]) == "a, b" and listed([]) == "none"


def test_long_names_are_cut_and_of_many_the_first_are_listed() -> None:
    text = listed(f"{number:04}" + "x" * 1000 for number in range(4096))
    assert text.startswith("0000xxx") and text.endswith(" and 4064 more")
    assert len(text) < 32 * 70


def test_a_misspelt_name_is_answered_with_the_right_one() -> None:
    names = ["resnet18", "resnet50", "yolov5n"]
    assert correction("resnet5O", names) == " (did you mean resnet50?)"
    assert correction("cats", names) == correction("x" * 10_000_000, names) == ""
