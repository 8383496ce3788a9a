"""Bearer tokens, stored as hashes in a file that is reloaded when it changes.

`visavis token NAME` creates one.
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
# Every call compares its token with all of them, in the event loop: 0.2 ms.
_MAX_TOKENS = 1024
_app = new_app()


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token for a client, and its line for the server's file."""

    token: str
    line: str


def new_token(name: str) -> NewToken:
    """Return a token of 256 random bits; name: its owner, for readers of the file."""
    token = secrets.token_urlsafe(32)
    return NewToken(token, f"sha256:{_hash(token.encode()).hex()} {name}".rstrip())


class Tokens:
    """The tokens in a file with a line `sha256:HEX NAME` for each; skips empty lines and #.

    files: the file, reloaded within a second of a change. Raises StartupError if the file has no
    tokens at first, or more than 1,024.
    """

    def __init__(self, path: Path) -> None:
        self.files = WatchedFiles("tokens", [path], lambda contents: _hashes(path, contents[0]))

    def contains(self, token: bytes) -> bool:
        """Return True if a token is valid, in a time that does not depend on the valid ones."""
        wanted = _hash(token)
        known = False
        for each in self.files.value:
            known |= hmac.compare_digest(each, wanted)
        return known

    def refusal(self, authorization: Sequence[str | bytes]) -> str:
        """Return why these `authorization` headers are rejected; empty if they are valid."""
        if len(authorization) != 1:
            return "authentication required: send one `authorization: Bearer TOKEN` header"
        (value,) = authorization
        value = value.encode() if isinstance(value, str) else value
        scheme, _, token = value.strip().replace(b"\t", b" ").partition(b" ")
        token = token.strip()
        if scheme.lower() != b"bearer" or not token:
            return "the authorization header is invalid; it must be: Bearer TOKEN"
        return "" if self.contains(token) else "the token is not valid on this server"


def _hashes(path: Path, contents: bytes) -> tuple[bytes, ...]:
    try:
        lines = contents.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise StartupError(
            f"the tokens in {path} can't be read: the file is not UTF-8; save it as UTF-8"
        ) from None
    hashes = []
    for number, line in enumerate(lines, 1):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        if (match := _LINE.fullmatch(text)) is None:
            raise StartupError(
                f"{path}, line {number}: must be `sha256:HEX NAME`; see `visavis token`"
            )
        hashes.append(bytes.fromhex(match[1]))
    if not hashes:
        raise StartupError(f"{path} has no tokens; create one with `visavis token NAME`")
    if len(hashes) > _MAX_TOKENS:
        raise StartupError(f"{path} has {len(hashes)} tokens; the limit is {_MAX_TOKENS}")
    return tuple(hashes)


def _hash(token: bytes) -> bytes:
    # A fast hash is enough: tokens are random, and cannot be guessed.
    return hashlib.sha256(token).digest()


@_app.command()
def _token(
    name: Annotated[str, typer.Argument(help="The token's owner, for readers of the file.")],
    file: Annotated[
        Path | None,
        typer.Option(help="The server's file of tokens, to which the new one is added."),
    ] = None,
) -> None:
    """Create a token for a client, and its line for the server's file of tokens."""
    if not re.fullmatch(r"[\w.@-]{1,64}", name):
        complain(f"{name[:80]!r} is not a valid name; use 1 to 64 letters, digits, and . _ @ -")
        raise typer.Exit(2)
    new = new_token(name)
    if file is None:
        print("add this line to the server's file of tokens (setting `tokens`):", file=sys.stderr)
        print(f"  {new.line}", file=sys.stderr)
    else:
        try:
            with file.open("a", encoding="utf-8") as out:
                out.write(f"{new.line}\n")
        except OSError as error:
            complain(f"{file} can't be written: {error.strerror}; choose another --file")
            raise typer.Exit(1) from None
        print(f"added to {escaped(str(file))}: {new.line}", file=sys.stderr)
    print("the client's token, stored nowhere else:", file=sys.stderr)
    print(new.token)


def main(args: list[str], prog: str = "python -m visavis_server.transport.tokens") -> int:
    """Run the command and return its exit code."""
    return run(_app, args, prog)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
