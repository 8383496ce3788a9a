"""Parameters as other clients send them: as numbers and truth values, or as their texts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis_server.api.inference.parameters import number, truth, whole
from visavis_server.errors import InvalidRequest


@pytest.mark.parametrize(
    ("sent", "expected"),
    [(0.5, 0.5), (1, 1), ("0.5", 0.5), (" 5e-1\r\n", 0.5), (".5", 0.5), ("5.", 5), ("-1", -1)],
)
def test_a_number_may_be_a_string(sent: object, expected: float) -> None:
    assert number({"x": sent}, "x") == expected


@pytest.mark.parametrize(("sent", "expected"), [(3, 3), (3.0, 3), ("3", 3), ("3.0", 3), ("+3", 3)])
def test_an_integer_may_be_any_number_without_a_fraction(sent: object, expected: int) -> None:
    found = whole({"x": sent}, "x")
    assert found == expected and isinstance(found, int)


@pytest.mark.parametrize(
    "sent",
    ["", " ", "many", "0,5", "1_0", "٣", "0x1", "nan", "inf", True, "true", "1 2", "1" * 65],
)
def test_an_invalid_number_is_rejected_with_its_value(sent: object) -> None:
    with pytest.raises(InvalidRequest) as error:
        number({"x": sent}, "x")
    assert str(error.value) == f"x is {str(sent)[:64]!r}; it must be a number"
    assert error.value.field == "parameters[x]"


@pytest.mark.parametrize("sent", [0.5, "0.5", float("inf"), float("nan"), "1e999"])
def test_a_fraction_is_no_integer(sent: object) -> None:
    with pytest.raises(InvalidRequest, match="it must be an integer"):
        whole({"x": sent}, "x", "outputs[0].parameters")


@pytest.mark.parametrize("sent", [True, "true", "True", " TRUE ", "1", False, "false", "0"])
def test_a_boolean_may_be_a_string(sent: Any) -> None:
    assert truth({"x": sent}, "x") is (str(sent).strip().lower() in ("true", "1"))


@pytest.mark.parametrize("sent", ["", "yes", "truely", 1, 0.0, "true" + " " * 70])
def test_an_invalid_boolean_is_rejected(sent: object) -> None:
    with pytest.raises(InvalidRequest, match="it must be true or false"):
        truth({"x": sent}, "x")


def test_an_absent_parameter_is_none() -> None:
    assert number({}, "x") is whole({}, "x") is truth({}, "x") is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_survives_its_string(value: float) -> None:
    assert number({"x": repr(value)}, "x") == value
