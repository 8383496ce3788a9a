"""`visavis pull` as people run it: a process with a minimal environment, in a foreign folder."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.faults.process import PATIENCE_S
from tests.surroundings import VISAVIS, Surroundings


@dataclass(frozen=True)
class Done:
    """What a pull has printed, and its exit code."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Puller:
    """Runs the command with some variables besides PATH and HOME."""

    surroundings: Surroundings
    variables: dict[str, str]

    @classmethod
    def under(cls, folder: Path, **variables: str) -> "Puller":
        return cls(Surroundings.under(folder), variables)

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [VISAVIS, "pull", *arguments],
            cwd=self.surroundings.elsewhere,
            env=self.surroundings.environment(self.variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str | Path) -> Done:
        with self.start(*arguments) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE_S)
            finally:
                process.kill()
        return Done(process.returncode, out, err)

    def ok(self, *arguments: str | Path) -> str:
        """Run it, and return its output; it must succeed."""
        done = self.run(*arguments)
        assert done.code == 0, done.err
        return done.out
