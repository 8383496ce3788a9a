"""The share of the machine that one model takes."""

from dataclasses import dataclass
from typing import Literal

Device = Literal["cpu", "openvino", "cuda", "tensorrt"]
"""The devices that can run a model, by the names in the settings."""

Memory = Literal["cpu", "cuda"]
"""Where a device has its tensors, by ONNX Runtime's names."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one model runs.

    runs_on: its runs take cores, or streams of a device. batch: the most images in one run.
    instances: concurrent runs. threads: the cores of each run. exclusive_threads: the cores of a
    run while nothing else runs; 0: the same. why: the reason, in words.
    """

    runs_on: Literal["cores", "device"] = "cores"
    batch: int = 1
    instances: int = 1
    threads: int = 1
    exclusive_threads: int = 0
    why: str = ""

    def __str__(self) -> str:
        """Describe the plan, for the log and `visavis doctor`."""
        text = f"{self.instances} at once"
        if self.runs_on == "cores":
            text += f" on {_counted(self.threads, 'thread')}"
        images = f"up to {self.batch} images" if self.batch > 1 else "1 image"
        text += f", each with {images}"
        return text + (
            f"; on {self.exclusive_threads} threads when alone" if self.exclusive_threads else ""
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
