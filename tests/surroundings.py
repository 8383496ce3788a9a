"""The surroundings in which a user starts a command, apart from the process of the tests."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_CHECKOUT = Path(__file__).parents[1]
# As pip installs it.
VISAVIS = str(Path(sys.executable).with_name("visavis"))


# A program that is started carelessly imports modules of these names from its working directory.
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
    """A home, a working directory, both empty at first, and an environment of PATH and HOME."""

    home: Path
    elsewhere: Path

    @classmethod
    def under(cls, folder: Path) -> Self:
        """Make both folders; those of an earlier call are used again."""
        new = cls(folder / "home", folder / "elsewhere")
        for each in (new.home, new.elsewhere):
            each.mkdir(parents=True, exist_ok=True)
        return new

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[Self]:
        """Yield surroundings that are removed afterwards."""
        with tempfile.TemporaryDirectory() as folder:
            yield cls.under(Path(folder))

    def shadow_modules(self) -> None:
        """Put modules in the working directory that end every process that imports them."""
        for name in _SHADOWS:
            (self.elsewhere / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")

    @property
    def files(self) -> list[Path]:
        """The files in both."""
        folders = (self.home, self.elsewhere)
        return sorted(f for folder in folders for f in folder.rglob("*") if not f.is_dir())

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables; more: those that a test is about."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), **(more or {})}

    def environment_of_tests(self) -> dict[str, str]:
        """Return the variables for a program of the tests, `python -m tests.NAME`."""
        return self.environment({"PYTHONPATH": str(_CHECKOUT)})


def can_unshare() -> bool:
    """Return True if processes can be started in a namespace of their own, as containers are."""
    tried = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return bool(shutil.which("unshare")) and not subprocess.run(tried, check=False).returncode
