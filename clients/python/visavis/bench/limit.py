"""The in-process limit: the throughput of the same work without a server."""

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
    """One measurement: answers per second, median latency and CPU time per answer, in ms.

    cores: CPU time received, as a share of its threads. Below 1, other processes were running.
    """

    per_s: float
    p50_ms: float
    cpu_ms: float
    cores: float


class Limit:
    """A process of `visavis_server.tools.limit`, which is idle between commands.

    graphs: ONNX files to run instead of the models' own, by model name. Every method raises
    ServerFailed if the process fails.
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
        """Terminate the process."""
        self._process.terminate()
        self._process.communicate()

    def run(
        self, models: Sequence[str], seconds: float, *, alone: bool = False, as_served: bool = False
    ) -> LimitRound:
        """Return the throughput of some models, with each picture decoded once for all models.

        alone: one picture at a time on all cores. as_served: pre-process as the server does.
        """
        command = {"run": models, "seconds": seconds, "alone": alone, "as_served": as_served}
        answer = self._ask(command)
        cores = answer["cores"] / self.about["threads"]
        return LimitRound(answer["per_s"], answer["p50_ms"], answer["cpu_ms"], cores)

    def answers(self, models: Sequence[str]) -> list[dict[str, list[dict[str, Any]]]]:
        """Return each model's labels, scores and boxes (xyxy), for each picture."""
        answers: list[dict[str, list[dict[str, Any]]]] = self._ask({"answers": models})["answers"]
        return answers

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise ServerFailed("the in-process limit exited; see its output above")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ServerFailed(f"the in-process limit failed: {answer['error']}")
        return answer
