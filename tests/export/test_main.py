"""`visavis export`: what a wrong command line is answered with."""

import pytest

from visavis_export.__main__ import main


def test_a_misspelt_name_is_answered_with_the_right_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["resnet50", "yolo5n"]) == 2
    captured = capsys.readouterr()
    assert "'yolo5n' is not a known model (did you mean yolov5n?)" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("option", "value"),
    [("--precision", "fp8"), ("--transforms", "V3"), ("--name", "../x"), ("--size", "31")],
)
def test_an_invalid_option_ends_with_a_two(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "yolov5n" if option == "--size" else "resnet50"
    assert main([name, option, value, "--weights", "random"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert option in line
    assert value in line
