"""Tokens: a file of hashes that is reloaded when it changes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from visavis_server.errors import StartupError
from visavis_server.transport import tokens
from visavis_server.transport.tokens import Tokens, new_token


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def write(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n")


def test_only_the_tokens_of_the_file_are_valid(file: Path) -> None:
    one, other, stranger = new_token("one"), new_token("other"), new_token("stranger")
    write(file, "# the cameras", one.line, "", f"  {other.line}  ")
    known = Tokens(file)
    assert known.contains(one.token.encode()) and known.contains(other.token.encode())
    for wrong in (stranger.token.encode(), b"", one.token[:-1].encode(), "ä".encode(), b"\xff"):
        assert not known.contains(wrong)


def test_the_file_has_hashes_only(file: Path) -> None:
    new = new_token("camera-7")
    assert new.token not in new.line
    assert new.line.startswith("sha256:") and new.line.endswith(" camera-7")


@pytest.mark.parametrize(
    "saved",
    [
        lambda line: b"\xef\xbb\xbf" + line,
        lambda line: line + b"\r\n\r\n",
        lambda line: b"  " + line.replace(b" ", b"\t") + b"  ",
        lambda line: line[:7] + line[7:71].upper() + line[71:],
    ],
)
def test_the_variants_that_editors_save_are_read(
    file: Path, saved: Callable[[bytes], bytes]
) -> None:
    new = new_token("new")
    file.write_bytes(saved(new.line.encode()))
    assert Tokens(file).contains(new.token.encode())


@pytest.mark.parametrize(
    "header",
    ["Bearer {}", "bearer {}", "  Bearer {}  ", "Bearer   {}", "Bearer\t{}\t", "BEARER {}"],
)
def test_blanks_around_a_token_are_ignored(file: Path, header: str) -> None:
    new = new_token("new")
    write(file, new.line)
    assert Tokens(file).refusal([header.format(new.token)]) == ""
    assert "not valid" in Tokens(file).refusal([header.format(new.token + " x")])
    assert "must be: Bearer TOKEN" in Tokens(file).refusal([header.format("")])


def test_a_changed_file_is_reloaded(file: Path) -> None:
    old, new = new_token("old"), new_token("new")
    write(file, old.line)
    known = Tokens(file)
    write(file, new.line)
    known.files.look()
    assert known.contains(new.token.encode())
    assert not known.contains(old.token.encode())


@pytest.mark.parametrize("damage", ["nonsense", "", None])
def test_a_broken_file_is_not_loaded(file: Path, damage: str | None) -> None:
    new = new_token("new")
    write(file, new.line)
    known = Tokens(file)
    if damage is None:
        file.unlink()
    else:
        write(file, damage)
    known.files.look()
    assert known.contains(new.token.encode())
    assert not known.contains(b"another")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "can't be read"),
        ("\n".join(f"sha256:{i:064x} x" for i in range(1025)), "1025 tokens; the limit is 1024"),
        ("", "has no tokens"),
        ("# nobody\n", "has no tokens"),
        ("sha256:\ud800", "is not UTF-8; save it as UTF-8"),
        ("secret\n", "line 1: must be `sha256:HEX NAME`"),
        ("# one\nsha256:abc x\n", "line 2"),
    ],
)
def test_an_unusable_file_prevents_the_start(file: Path, text: str | None, words: str) -> None:
    if text is not None:
        file.write_text(text, "utf-8", "surrogatepass")
    with pytest.raises(StartupError, match=words):
        Tokens(file)


def test_the_command_prints_the_token_and_adds_its_hash(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tokens.main(["camera-7", "--file", str(file)]) == 0
    token = capsys.readouterr().out.strip()
    assert Tokens(file).contains(token.encode())
    assert file.read_text().endswith(" camera-7\n")


def test_the_command_rejects_a_name_that_would_break_the_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tokens.main(["two\nlines"]) == 2
    assert "letters, digits" in capsys.readouterr().err
