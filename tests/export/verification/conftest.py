"""A YOLOv5nu of random weights: its checkpoint, and the file that ultralytics exports from it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from visavis_export.families import random_weights
from visavis_export.families.yolov5 import letterboxed_pictures
from visavis_export.families.yolov5u import _spreads
from visavis_export.pictures.synthetic import synthetic_pictures
from visavis_export.verification.outcome import Outcome
from visavis_export.verification.verify import Request, Theirs, verify

PICTURES = {
    name: synthetic_pictures()[name]
    for name in ("synthetic wide", "synthetic tall", "synthetic odd")
}


@dataclass(frozen=True)
class Exported:
    """A checkpoint and the file that was exported from it."""

    checkpoint: Path
    file: Path

    def verified(self, cache: Path, file: Path | None = None, **options: Any) -> Outcome:
        pictures = options.pop("pictures", PICTURES)
        request = Request(file or self.file, self.checkpoint, pictures, **options)
        return verify(request, cache)

    def about(self, cache: Path, picture: str = "synthetic wide", **theirs: Any) -> Outcome:
        """Verify one picture and what other code made of it."""
        return self.verified(cache, pictures={picture: PICTURES[picture]}, theirs=Theirs(**theirs))

    def changed(self, target: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
        """Return a copy of the file whose graph is changed."""
        model = onnx.load(self.file)
        change(model)
        onnx.save(model, target)
        return target


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return a detector that ultralytics exported itself, at 320 pixels."""
    folder = tmp_path_factory.mktemp("yolov5nu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_AUTOINSTALL", "false")
        patch.setenv("YOLO_OFFLINE", "true")
        patch.setenv("YOLO_CONFIG_DIR", str(folder))
        patch.chdir(folder)
        import ultralytics

        random_weights.seed()
        model = ultralytics.YOLO("yolov5nu.yaml")
        module = model.model.eval()
        random_weights.calibrate(module, _spreads(module), letterboxed_pictures())
        module.names = {i: f"thing {i}" for i in range(80)}
        checkpoint = folder / "best.pt"
        torch.save({"model": module, "ema": None, "train_args": {"imgsz": 320}}, checkpoint)
        file = Path(model.export(format="onnx", simplify=False, imgsz=320))
        target = folder / "best.onnx"
        file.rename(target)
    return Exported(checkpoint, target)
