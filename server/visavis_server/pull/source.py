"""What all kinds of sources have in common."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

FILES = ("model.onnx", "model.json", "model.sig")
"""The files of a version that are fetched: the model, its document, and its signature."""

# Blocks that are requested one by one. A cut-off connection costs one of them at most.
BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A file at the source.

    path: below the source, NAME/VERSION/FILE. size: in bytes. tag: changes when the contents do.
    key: what the source reads it by. sha256: of the contents, in hexadecimal, if the source says
    so; "" otherwise.
    """

    path: str
    size: int
    tag: str
    key: str = ""
    sha256: str = ""

    @property
    def file(self) -> str:
        """The name of the file alone."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source holds.

    entries: the files of all versions. passed_over: paths that were probably meant as models, and
    why they are not fetched.
    """

    entries: list[Entry] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)


Wanted = Callable[[str], bool]
"""Returns True for the name of a model that is to be fetched."""


class Source(Protocol):
    """A place where models are kept. Its methods raise PullError, with nothing secret in it."""

    name: str
    """Its URL, without what may be secret."""

    def listing(self, wanted: Wanted, max_versions: int) -> Listing:
        """Return its files; raises PullFailed if it has more versions than `max_versions`."""

    def read(self, entry: Entry, offset: int) -> Iterator[bytes]:
        """Yield the contents of a file from an offset on, block by block.

        Raises Restart if the source can't begin at an offset.
        """

    def tag(self, entry: Entry) -> str:
        """Return the tag that a file has now."""


class Restart(Exception):
    """The source can't begin at an offset: read the file from its beginning."""
