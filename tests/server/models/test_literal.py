"""Plain Python literals, read without Python's parser."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis_server.models.literal import read_literal

_ATOMS = st.one_of(
    st.text(max_size=50), st.integers(-(10**19), 10**19), st.booleans(), st.none(), st.floats(-9, 9)
)


@given(st.one_of(_ATOMS, st.lists(_ATOMS), st.dictionaries(_ATOMS, _ATOMS)))
def test_reading_a_repr_returns_the_value(value: Any) -> None:
    try:
        assert read_literal(repr(value)) == value
    except ValueError:
        assert "e-" in repr(value)  # of numbers with many digits


def test_tuples_spaces_and_trailing_commas_are_read() -> None:
    assert read_literal(' ( 1 , "it\'s" , ) ') == [1, "it's"]
    assert read_literal("{ 0 : 'a',}") == {0: "a"}
    assert read_literal("[]") == []
    assert read_literal("{}") == {}


@pytest.mark.parametrize(
    "text",
    [
        *("", "[", "]", "[1", "{1}", "{1: 2: 3}", "[1 2]", "1 2", "[[1]]", "x", "f()", "b'x'"),
        *("f'{x}'", "'a' 'b'", "1+1", "--1", "9" * 5000, "(" * 10**6, "'" + "a" * 10**6, "'\\'"),
        *("[1]" * 2, "{'a': print}", "lambda: 0", "'\\x'", "0x10", "1_0", "01"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"character"):
        read_literal(text)


def test_a_repeated_key_is_refused() -> None:
    with pytest.raises(ValueError, match="a key is repeated"):
        read_literal("{0: 'a', 1: 'b', 0: 'c'}")


def test_the_longest_text_and_the_longest_value_are_read_and_nothing_longer() -> None:
    whole, value = 4 << 20, 4096
    assert read_literal("1".rjust(whole)) == 1
    with pytest.raises(ValueError, match=f"it has {whole + 1} characters; the limit is {whole}"):
        read_literal("1".rjust(whole + 1))
    longest = "a" * (value - len("''"))
    assert read_literal(f"'{longest}'") == longest
    with pytest.raises(ValueError, match="expected a plain value at character 0"):
        read_literal(f"'{longest}a'")
