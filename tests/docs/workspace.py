"""A folder as the documentation assumes it, with a server that answers there."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tests.faults.process import PATIENCE_S, ServerProcess, free_port
from tests.server import graphs
from tests.surroundings import VISAVIS

FRAMES = 10
"""Of `street.mp4`."""

_COLORS = {"coffee": (200, 40, 30), "cat": (30, 180, 50), "rocket": (20, 40, 210)}


@dataclass(frozen=True)
class Workspace:
    """A working directory, and the addresses to call.

    It has `models`, `photos`, `street.jpg` and `street.mp4`.
    """

    folder: Path
    grpc: str
    http: str

    def run_command(self, command: str) -> str:
        """Run one line of a shell, and return its output; a server is stopped once it is ready."""
        if command.startswith("visavis serve"):
            return self._serve(command)
        done = subprocess.run(
            ["bash", "-c", self._here(command)],
            cwd=self.folder,
            env=self._environment(VISAVIS_SERVER=self.grpc),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run_python(self, code: str) -> str:
        """Run a program, and return its output."""
        done = subprocess.run(
            [sys.executable, "-P", "-c", self._here(code)],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{code}\n{done.stderr}"
        return done.stdout

    def _serve(self, command: str) -> str:
        """Start a server at free addresses, and stop it once it is ready."""
        log = self.folder / "serve.log"
        free = re.sub(r"(--(?:grpc|http|metrics) [\d.]+):\d+", r"\1:0", command)
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {free}"],
                cwd=self.folder,
                env=self._environment(VISAVIS_GRPC="127.0.0.1:0", VISAVIS_LOG_FORMAT="json"),
                stdout=output,
                stderr=output,
            )
        try:
            end = time.monotonic() + PATIENCE_S
            while '"event":"ready"' not in (text := log.read_text("utf-8").replace(" ", "")):
                assert process.poll() is None, f"$ {command}\n{text}"
                assert time.monotonic() < end, f"$ {command}\n{text}"
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0, log.read_text("utf-8")
        finally:
            process.kill()
            process.wait()
        return ""

    def _here(self, text: str) -> str:
        text = text.replace("127.0.0.1:8001", self.grpc).replace("127.0.0.1:8000", self.http)
        return text.replace("unix:/run/visavis.sock", self.grpc)

    def _environment(self, **more: str) -> dict[str, str]:
        programs = f"{Path(VISAVIS).parent}:{os.environ['PATH']}"
        return {"PATH": programs, "HOME": str(self.folder), "COLUMNS": "100", **more}


@contextmanager
def workspace(folder: Path) -> Iterator[Workspace]:
    """Yield a workspace in a folder, with a server that runs meanwhile."""
    put_models(folder / "models")
    _put_pictures(folder)
    _put_video(folder / "street.mp4")
    http = f"127.0.0.1:{free_port()}"
    with ServerProcess(folder / "models", folder / "server", "--http", http) as server:
        yield Workspace(folder, server.address, http)


def put_models(repository: Path) -> None:
    """Write small models under the names that the documentation uses."""
    for name in ("resnet50", "resnet18"):
        model, _ = graphs.export(graphs.classifier(), graphs.classifier_document(name=name))
        graphs.put(repository, name, 1, model)
    for name in ("yolov5n", "helmets"):
        document = graphs.detector_document(name=name)
        model, _ = graphs.export(graphs.constant(graphs.ROWS), document)
        graphs.put(repository, name, 1, model)


def _put_pictures(folder: Path) -> None:
    photos = folder / "photos"
    photos.mkdir()
    rows = ["file,class_index"]
    for number, (name, color) in enumerate(_COLORS.items()):
        Image.fromarray(np.full((48, 64, 3), color, np.uint8)).save(photos / f"{name}.jpg")
        rows.append(f"{name}.jpg,{number}")
    (photos / "labels.csv").write_text("\n".join(rows), "utf-8")
    Image.fromarray(np.full((48, 64, 3), _COLORS["cat"], np.uint8)).save(folder / "street.jpg")


def _put_video(file: Path) -> None:
    """Write a real video, in which a bright square crosses a dark street."""
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    video = cv2.VideoWriter(str(file), codec, 25.0, (128, 96))
    assert video.isOpened()
    for number in range(FRAMES):
        frame = np.full((96, 128, 3), 40, np.uint8)
        frame[40:60, 10 * number : 10 * number + 20] = 230
        video.write(frame)
    video.release()
