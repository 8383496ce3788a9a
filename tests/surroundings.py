"""What a command meets where a user starts it, and nothing of the tests' own process."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# As pip installs it.
VISAVIS = str(Path(sys.executable).with_name("visavis"))


# Modules of these names in the working directory are imported by what is started carelessly.
_SHADOWS = (
    "server",
    "export",
    "visavis",
    "visavis_server",
    "visavis_export",
    "queue",
    "signal",
    "numpy",
)


@dataclass(frozen=True)
class Surroundings:
    """A home and a working directory, both empty at first, and an environment of PATH and HOME."""

    home: Path
    elsewhere: Path

    @classmethod
    def under(cls, folder: Path) -> Self:
        """Make both folders; those of an earlier call are used again."""
        new = cls(folder / "home", folder / "elsewhere")
        for each in (new.home, new.elsewhere):
            each.mkdir(parents=True, exist_ok=True)
        return new

    def shadow_modules(self) -> None:
        """Put files in the working directory that end every process which imports them."""
        for name in _SHADOWS:
            (self.elsewhere / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")

    @property
    def files(self) -> list[Path]:
        """Every file that lies in either."""
        folders = (self.home, self.elsewhere)
        return sorted(f for folder in folders for f in folder.rglob("*") if not f.is_dir())

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables; more: those that a test is about."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), **(more or {})}
