"""What libraries find in the environment when they are imported, in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.surroundings import Surroundings

SILENT = {"GRPC_VERBOSITY": "NONE", "GRPC_DNS_RESOLVER": "native"}
EXACT = {"NVIDIA_TF32_OVERRIDE": "0"}
SAFE = {
    "ORT_DISABLE_TELEMETRY": "1",
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(1 << 28),
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
}
# Imports a module, and prints what the environment was when each library was first looked for.
WATCHED = """
import importlib, json, os, sys
seen = {}
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("cv2", "grpc", "numpy", "onnxruntime", "ultralytics"):
            seen.setdefault(name, dict(os.environ))
sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
print(json.dumps(seen))
"""
# A PNG of one bit a pixel and 268,960,000 pixels, of which 2^28 are 268,435,456.
HUGE = """
import struct, zlib
import visavis_server
import cv2, numpy
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
header = struct.pack(">IIBBBBB", 16400, 16400, 1, 0, 0, 0, 0)
rows = zlib.compress(bytes((16400 // 8 + 1) * 16400))
png = b"\\x89PNG\\r\\n\\x1a\\n"
png += chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
try:
    print(cv2.imdecode(numpy.frombuffer(png, numpy.uint8), cv2.IMREAD_GRAYSCALE).shape)
except cv2.error as error:
    print(error)
"""


def _ran(folder: Path, code: str, *arguments: str, **environment: str) -> str:
    found = Surroundings.under(folder)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=found.elsewhere,
        env=found.environment(environment),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert list(found.home.iterdir()) == []
    return done.stdout


@pytest.mark.parametrize(
    ("module", "libraries"),
    [
        ("visavis_server.runtime.session", {"numpy", "onnxruntime"}),
        ("visavis_server.vision.image", {"cv2", "numpy"}),
        ("visavis_server.app", {"cv2", "grpc", "numpy", "onnxruntime"}),
        ("visavis_server.tools.limit", {"cv2", "numpy", "onnxruntime"}),
        ("visavis_server.models.trial_process", {"cv2", "numpy", "onnxruntime"}),
        ("visavis_export.graphs.precision", {"numpy", "onnxruntime"}),
    ],
)
def test_every_variable_is_set_before_any_library_is_imported(
    module: str, libraries: set[str], tmp_path: Path
) -> None:
    seen = json.loads(_ran(tmp_path, WATCHED, module, ORT_DISABLE_TELEMETRY="0"))
    assert libraries <= set(seen)
    for variables in seen.values():
        expected = {**SAFE, **SILENT, **EXACT, "OPENBLAS_NUM_THREADS": "1"}
        assert expected.items() <= variables.items()


def test_the_command_sets_grpcs_variables_before_grpc_is_imported(tmp_path: Path) -> None:
    seen = json.loads(_ran(tmp_path, WATCHED, "visavis.commands.classify"))
    assert SILENT.items() <= seen["grpc"].items()


def test_importing_the_sdk_changes_no_variable(tmp_path: Path) -> None:
    program = "import os; before = dict(os.environ); from visavis import Client, errors; "
    assert _ran(tmp_path, program + "print(dict(os.environ) == before)") == "True\n"


@pytest.mark.parametrize("module", ["visavis_server.app", "visavis.commands.classify"])
def test_what_a_user_says_about_grpcs_log_stays(module: str, tmp_path: Path) -> None:
    seen = json.loads(_ran(tmp_path, WATCHED, module, GRPC_VERBOSITY="debug"))
    assert seen["grpc"]["GRPC_VERBOSITY"] == "debug"


def test_opencvs_own_cap_on_pixels_is_active(tmp_path: Path) -> None:
    said = _ran(tmp_path, HUGE, OPENCV_IO_MAX_IMAGE_PIXELS=str(1 << 40))
    assert "CV_IO_MAX_IMAGE_PIXELS" in said
