"""How much of the machine one model takes."""

from dataclasses import dataclass
from typing import Literal

Device = Literal["cpu", "openvino", "cuda", "tensorrt"]
"""What runs a model, as users call it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one model is run.

    place: its runs take cores, or streams of a device. batch: most images in one run.
    instances: runs at once. threads: cores that each of these takes. exclusive_threads: cores
    for a run that has the machine for itself; 0: no different. why: for people.
    """

    runs_on: Literal["cores", "device"] = "cores"
    batch: int = 1
    instances: int = 1
    threads: int = 1
    exclusive_threads: int = 0
    why: str = ""

    def __str__(self) -> str:
        """Say it as the log and `visavis doctor` do."""
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
