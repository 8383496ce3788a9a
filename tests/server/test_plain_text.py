"""Text from elsewhere on one line."""

import re

from hypothesis import given
from hypothesis import strategies as st

from visavis_server.plain_text import escaped


def test_what_could_steer_a_terminal_is_written_out() -> None:
    assert escaped("a\nb\r\x1b[31mc\x00\x9b\u2028\u202e") == r"a\nb\r\x1b[31mc\x00\x9b\u2028\u202e"


def test_what_is_no_unicode_is_written_out() -> None:
    assert escaped("caf\udce9") == r"caf\udce9"


def test_printable_text_stays_as_it_is() -> None:
    assert escaped("Übergröße: 1 × 2 … ☃") == "Übergröße: 1 × 2 … ☃"


def test_long_text_is_cut() -> None:
    assert escaped("x" * 5000, most=10) == "x" * 10 + "…"


@given(st.text())
def test_every_text_becomes_one_line_that_can_be_encoded(text: str) -> None:
    line = escaped(text)
    assert line.isprintable()
    assert len(line.splitlines()) <= 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line)
    line.encode()
