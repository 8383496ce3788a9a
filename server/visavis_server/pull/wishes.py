"""What is pulled, and its limits."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """What a source may hold. Bytes are those of one file, and of all versions together."""

    versions: int = 1000
    # More does not fit into an ONNX file.
    file_bytes: int = 2 << 30
    total_bytes: int = 20 << 30


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is pulled, and how.

    models: their names; empty: all. delete: remove versions that the source no longer has.
    require_digest: refuse files that state none.
    """

    models: frozenset[str] = frozenset()
    delete: bool = False
    require_digest: bool = False
    limits: Limits = field(default_factory=Limits)

    def wants(self, name: str) -> bool:
        """Return True for the name of a model that is pulled."""
        return not self.models or name in self.models
