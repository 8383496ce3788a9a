"""Bearer tokens, kept as hashes in a file that may change while it is in use.

`visavis token NAME` makes one.
"""

import hashlib
import hmac
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from visavis_server.command import complain, new_app, run
from visavis_server.errors import StartupError
from visavis_server.plain_text import escaped
from visavis_server.transport.watched_files import WatchedFiles

_LINE = re.compile(r"sha256:([0-9a-fA-F]{64})(?:\s+(\S.*))?")
# Every call is compared with each, in the loop: 0.2 ms.
_MAX_TOKENS = 1024
_app = new_app()


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token, for whoever calls, and the line that lets it in, for the server's file."""

    token: str
    line: str


def new_token(name: str) -> NewToken:
    """Return a token of 256 random bits; name: whose it is, for people who read the file."""
    token = secrets.token_urlsafe(32)
    return NewToken(token, f"sha256:{_hash(token.encode()).hex()} {name}".rstrip())


class Tokens:
    """The tokens of a file: a line `sha256:HEX NAME` each; empty lines and # are skipped.

    files: where they come from; a change counts within a second. Raises StartupError if there is
    none at first, or more than 1,024.
    """

    def __init__(self, path: Path) -> None:
        self.files = WatchedFiles("tokens", [path], lambda contents: _hashes(path, contents[0]))

    def contains(self, token: bytes) -> bool:
        """Say whether a token is among them, in a time that tells nothing about them."""
        given = _hash(token)
        known = False
        for each in self.files.value:
            known |= hmac.compare_digest(each, given)
        return known

    def refusal(self, authorization: Sequence[str | bytes]) -> str:
        """Return why a call with these `authorization` headers may not come in, or nothing."""
        if len(authorization) != 1:
            return "this server wants a token: send authorization: Bearer TOKEN, once"
        (value,) = authorization
        value = value.encode() if isinstance(value, str) else value
        scheme, _, token = value.strip().replace(b"\t", b" ").partition(b" ")
        token = token.strip()
        if scheme.lower() != b"bearer" or not token:
            return "the authorization must be: Bearer TOKEN"
        return "" if self.contains(token) else "the token is not known here"


def _hashes(path: Path, contents: bytes) -> tuple[bytes, ...]:
    try:
        lines = contents.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise StartupError(
            f"the tokens in {path} can't be read: it is no UTF-8; save it as UTF-8"
        ) from None
    hashes = []
    for number, line in enumerate(lines, 1):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        if (match := _LINE.fullmatch(text)) is None:
            raise StartupError(
                f"{path}, line {number}: must be `sha256:HEX NAME`; `visavis token NAME` makes one"
            )
        hashes.append(bytes.fromhex(match[1]))
    if not hashes:
        raise StartupError(f"{path} holds no token; `visavis token NAME` makes one")
    if len(hashes) > _MAX_TOKENS:
        raise StartupError(f"{path} holds {len(hashes)} tokens, the limit is {_MAX_TOKENS}")
    return tuple(hashes)


def _hash(token: bytes) -> bytes:
    # Tokens are random, so that nothing slower is needed to keep them from being guessed.
    return hashlib.sha256(token).digest()


@_app.command()
def _token(
    name: Annotated[str, typer.Argument(help="Whose it is, for people who read the file.")],
    file: Annotated[
        Path | None, typer.Option(help="The server's file of tokens, to add the new one to.")
    ] = None,
) -> None:
    """Make a token for a client of the server, and the line that lets it in."""
    if not re.fullmatch(r"[\w.@-]{1,64}", name):
        raise typer.BadParameter(
            f"{name[:80]!r} is no name; give 1 to 64 letters, digits, and any of . _ @ -"
        )
    new = new_token(name)
    if file is None:
        print("for the server's file of tokens, its setting `tokens`:", file=sys.stderr)
        print(f"  {new.line}", file=sys.stderr)
    else:
        try:
            with file.open("a", encoding="utf-8") as out:
                out.write(f"{new.line}\n")
        except OSError as error:
            complain(f"{file} can't be written: {error.strerror}")
            raise typer.Exit(1) from None
        print(f"added to {escaped(str(file))}: {new.line}", file=sys.stderr)
    print("for the client, kept nowhere else:", file=sys.stderr)
    print(new.token)


def main(args: list[str], prog: str = "python -m visavis_server.transport.tokens") -> int:
    """Run the command; returns its exit code."""
    return run(_app, args, prog)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
