"""What is tried: a GPU, or the CPU in its place; models from real weights; pictures."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from visavis_server.arrays import Tensor
from visavis_server.models.loader import Loader
from visavis_server.models.model_files import ModelFile, scan
from visavis_server.models.planning import Planner, planner_of
from visavis_server.models.served_model import ServedModel
from visavis_server.runtime import nvidia
from visavis_server.runtime.cores import usable_cores
from visavis_server.runtime.providers import CPU, PROVIDERS, Provider
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.settings import ImageLimits, load_settings
from visavis_server.vision.families import preprocess_one
from visavis_server.vision.image import decode_file, read_file
from visavis_server.vision.results import Picture

STAND_IN = replace(CPU, on_device=True)
"""The CPU as a device: it shows that the proofs themselves work, and nothing about a GPU."""

CACHE = Path("~/.cache/visavis/gpu").expanduser()
_NAMES = ("resnet50", "yolov5n")
_MOST_PICTURES = 16


def missing(device: str) -> str:
    """Return why there is nothing to prove here; empty if there is a GPU."""
    provider = next(each for each in PROVIDERS if each.device == device)
    return "; ".join(provider.missing())


def exported(weights: str) -> Path:
    """Return a repository with the models in fp32 and fp16; it is exported once."""
    if not all((CACHE / name / "1" / "model.onnx").is_file() for name in _NAMES):
        command = [sys.executable, "-P", "-m", "visavis", "export", *_NAMES, "--out", str(CACHE)]
        subprocess.run([*command, "--precision", "fp32,fp16", "--weights", weights], check=True)
    return CACHE


def pictures(folder: Path | None) -> list[Path]:
    """Return the JPEG files of a folder, evenly chosen; without one, none."""
    if folder is None:
        return []
    found = sorted(each for each in folder.rglob("*") if each.suffix.lower() in (".jpg", ".jpeg"))
    return found[:: max(1, len(found) // _MOST_PICTURES)][:_MOST_PICTURES]


def made_up(folder: Path) -> list[Path]:
    """Return pictures that are made here: smooth noise of a camera's usual size."""
    files = []
    for seed in range(_MOST_PICTURES):
        small = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
        files.append(folder / f"{seed}.jpg")
        cv2.imwrite(str(files[-1]), cv2.resize(small, (640, 480), interpolation=cv2.INTER_CUBIC))
    return files


@dataclass(frozen=True, eq=False)
class Site:
    """planner: of the device. repository, files: the models and the pictures."""

    planner: Planner
    repository: Path
    files: Sequence[Path]
    seconds: float = 2.0

    @classmethod
    def of(cls, device: str, repository: Path, files: Sequence[Path], seconds: float) -> "Site":
        """Return the site for a device, by the name in the settings, or "stand-in"."""
        if device == "stand-in":
            planner = Planner(STAND_IN, usable_cores(), streams=2)
        else:
            planner, _ = planner_of(load_settings({"device": device}))
        return cls(planner, repository, files, seconds)

    @property
    def provider(self) -> Provider:
        """The provider of the device."""
        return self.planner.provider

    @property
    def is_gpu(self) -> bool:
        """False for the CPU in its place."""
        return self.provider is not STAND_IN

    @property
    def models(self) -> list[ModelFile]:
        """The models of the repository."""
        return scan(self.repository)

    @cached_property
    def encoded(self) -> list[bytes]:
        """The pictures' files."""
        return [file.read_bytes() for file in self.files]

    @cache  # noqa: B019  one site lives as long as the process
    def loaded(self, file: ModelFile) -> ServedModel:
        """Return a model on the device: verified against its golden sample, with all batches."""
        return self._load(file, self.planner)

    @cache  # noqa: B019
    def on_cpu(self, file: ModelFile) -> ServedModel:
        """Return the same model on the CPU."""
        return self._load(file, Planner(CPU, self.planner.cores))

    def _load(self, file: ModelFile, planner: Planner) -> ServedModel:
        scheduler = Scheduler(planner.cores, 512, planner.streams)
        engines = load_settings({"device": "tensorrt"}).engine_dir() if self.is_gpu else CACHE
        return Loader(planner, scheduler, engines).load(file)

    def inputs(self, model: ServedModel, count: int) -> Tensor:
        """Return a batch of prepared pictures, [count, 3, height, width]."""
        chosen = [self.encoded[i % len(self.encoded)] for i in range(count)]
        family = model.engine.family
        return np.concatenate([preprocess_one(family, decoded(each))[0] for each in chosen])

    def used_bytes(self) -> int:
        """Return the memory in use: of the GPU, by all processes; of this process elsewhere."""
        if not self.is_gpu:
            return int(psutil.Process().memory_info().rss)
        (total,) = (g.memory_bytes for g in nvidia.gpus() if g.number == self.planner.gpu)
        return total - nvidia.free_bytes(self.planner.gpu)


def decoded(data: bytes) -> Any:
    """Return the pixels of an encoded picture, as the server decodes it."""
    return decode_file(read_file(data, ImageLimits()))


def picture(data: bytes) -> Picture:
    """Return a picture for the server's core."""
    return Picture(lambda: decoded(data))


async def gathered(count: int, one: Callable[[int], Any]) -> list[Any]:
    """Return the results or errors of concurrent calls."""
    return await asyncio.gather(*(one(i) for i in range(count)), return_exceptions=True)


@contextmanager
def scratch(environment: str = "TMPDIR") -> Iterator[Path]:
    """Lend a folder that is removed afterwards."""
    import tempfile

    with tempfile.TemporaryDirectory(dir=os.environ.get(environment)) as folder:
        yield Path(folder)
