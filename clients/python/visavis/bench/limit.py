"""The in-process limit: the application's own measurement of what is possible without a server."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from visavis.errors import ServerFailed

_MODULE = "visavis_server.tools.limit"


@dataclass(frozen=True, slots=True)
class LimitRound:
    """What was possible: answers per second, their median latency and CPU each, in ms.

    cores: how many it really had, as a share of its threads. Below 1, something else ran too.
    """

    per_s: float
    p50_ms: float
    cpu_ms: float
    cores: float


class Limit:
    """`python -m visavis_server.tools.limit`, a process that is idle unless it is told to run.

    graphs: files to run in place of models' own. Every method raises ServerFailed where the
    process can't do what it is told.
    """

    def __init__(
        self, models: Path, pictures: Sequence[Path], graphs: Mapping[str, Path] | None = None
    ) -> None:
        options = [f"--graph={name}={path}" for name, path in (graphs or {}).items()]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE, f"--models={models}", *options]
            + [str(path) for path in pictures],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.communicate()

    def run(
        self, models: Sequence[str], seconds: float, *, alone: bool = False, as_served: bool = False
    ) -> LimitRound:
        """Return what is possible with some models, each picture decoded once for all.

        alone: one picture at a time on all cores. as_served: pre-processed as the server does.
        """
        order = {"run": models, "seconds": seconds, "alone": alone, "as_served": as_served}
        answer = self._ask(order)
        cores = answer["cores"] / self.about["threads"]
        return LimitRound(answer["per_s"], answer["p50_ms"], answer["cpu_ms"], cores)

    def answers(self, models: Sequence[str]) -> list[dict[str, list[dict[str, Any]]]]:
        """Return for each picture what each model sees: labels, scores and boxes xyxy."""
        answers: list[dict[str, list[dict[str, Any]]]] = self._ask({"answers": models})["answers"]
        return answers

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise ServerFailed("the in-process limit ended; what it printed above says why")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ServerFailed(f"the in-process limit: {answer['error']}")
        return answer
