"""Checkpoints with a payload instead of one text, name or number.

As a program, `python -m tests.export.forgeries SEED FOLDER KIND=COUNT...` reads forgeries under an
audit hook, and prints a report on each kind as a line of JSON.
"""

import encodings.cp437  # noqa: F401  zipfile imports it at the first name beyond ASCII
import io
import json
import pickletools
import random
import resource
import struct
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress

from visavis_export import exporter
from visavis_export.checkpoints.published import describe
from visavis_export.errors import ExportError

from . import originals

EVIL = "__import__('os').system('touch PWNED')"
TEXTS = (
    EVIL,
    f"nn.SiLU() or {EVIL}",
    f"nn.LeakyReLU({EVIL})",
    "nn.Module",
    "torch.hub.load('evil/repo', 'model')",
    "os.system",
    "{0.__class__.__init__.__globals__}",
    "%s%n%1000000000d",
    "../../../../tmp/PWNED",
    "model.0.conv.weight",
    "\x1b[31m\r\n\0",
    "A" * 1_000_000,
    "",
)
NAMES = (
    "os system",
    "posix system",
    "builtins eval",
    "builtins exec",
    "builtins getattr",
    "subprocess Popen",
    "torch.hub load",
    "torch load",
    "functools partial",
    "models.common Evil",
    "torch.nn.modules.activation Evil",
    "torch.nn.modules.container Sequential",
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch HalfStorage",
    "ultralytics.nn.tasks DetectionModel",
)
NUMBERS = (-1, 0, 3, 1 << 30, float("nan"), float("inf"), -1e300, None, EVIL)

# What Python reports of a program that starts others, talks, compiles, or loads code.
_FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen"),
    *("exec", "compile", "import", "ctypes.dlopen", "pickle.find_class", "marshal.loads"),
    *("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"),
    *("os.remove", "os.rename", "os.mkdir", "os.chmod", "os.link", "os.symlink", "shutil.rmtree"),
)
# The product's own: where ultralytics keeps its settings, and the words of our description, which
# it parses.
_OURS = ("visavis-ultralytics-", "(b'nearest', ", "(b'nc', ")
KINDS = ("yolov5", "yolov5n-cls", "yolov5nu", "resnet18")


def genuine(kind: str, folder: Path) -> Path:
    """Return a genuine checkpoint with random weights."""
    path = folder / f"{kind}.pt"
    if kind == "yolov5":
        model = originals.DetectionModel(originals.small_yaml() | {"activation": "nn.SiLU()"})
        return originals.save(model, path, opt={"imgsz": 640}, date="2024-01-01")
    if kind == "yolov5n-cls":
        yaml = describe("n", 2) | {"anchors": originals.ANCHORS}
        detector = originals.DetectionModel(yaml)
        return originals.save(originals.ClassificationModel(detector, 2), path)
    if kind == "yolov5nu":
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("YOLO_CONFIG_DIR", str(folder))
            from ultralytics.nn.tasks import DetectionModel

            model = DetectionModel("yolov5n.yaml", nc=3, verbose=False).half()
        torch.save({"model": model, "ema": None, "train_args": {"imgsz": 640}}, path)
        return path
    from torchvision.models import resnet18

    torch.save({"state_dict": resnet18().half().state_dict()}, path)
    return path


def forgeries(path: Path, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield descriptions of forgeries and their files, endlessly; places are equally likely."""
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    (name,) = (name for name in records if name.endswith("data.pkl"))
    pickle = records[name]
    steps = list(pickletools.genops(pickle))
    ends = [at or 0 for _, _, at in steps[1:]] + [len(pickle)]
    kinds: dict[str, list[tuple[int, int, object]]] = {"text": [], "name": [], "number": []}
    for (opcode, argument, at), end in zip(steps, ends, strict=True):
        kind = {"BINUNICODE": "text", "GLOBAL": "name"}.get(opcode.name, "")
        kind = "number" if opcode.name in ("BININT", "BININT1", "BININT2", "BINFLOAT") else kind
        if kind:
            kinds[kind].append((at or 0, end, argument))
    payloads: dict[str, tuple[Any, ...]] = {"text": TEXTS, "name": NAMES, "number": NUMBERS}
    while True:
        for kind, places in kinds.items():
            start, end, was = chance.choice(places)
            payload = chance.choice(payloads[kind])
            forged = pickle[:start] + _encoded(kind, payload) + pickle[end:]
            yield (
                f"{kind} {was!r:.40} at {start}: {payload!r:.40}",
                zipped(records | {name: forged}),
            )


def zipped(records: dict[str, bytes]) -> bytes:
    """Return an archive in torch's format: uncompressed, with correct checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _encoded(kind: str, payload: Any) -> bytes:
    if kind == "name":
        module, name = payload.split()
        return f"c{module}\n{name}\n".encode()
    if isinstance(payload, str):
        text = payload.encode()
        return b"X" + struct.pack("<I", len(text)) + text
    if payload is None:
        return b"N"
    if isinstance(payload, float):
        return b"G" + struct.pack(">d", payload)
    return b"J" + struct.pack("<i", payload)


def read_all(kind: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Read forgeries; returns the outcomes and every forbidden audit event."""
    real, target = genuine(kind, folder), folder / "forged.pt"
    request = exporter.Request(kind, folder / "out", weights=str(target))
    watched: list[str] = []
    watching = False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        writes = (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        )
        if watching and (writes or event in _FORBIDDEN):
            what = f"{event} {arguments!r:.200}"
            if not any(one in what for one in _OURS):
                watched.append(what)

    def read() -> str:
        try:
            exporter._original(request, Progress(disable=True))
        except ExportError as error:
            text = str(error)
            fit = text.isprintable() and len(text) < 800
            return "refused" if fit else f"an unfit message: {text!r:.300}"
        except Exception as error:  # noqa: BLE001  whatever else comes is a find
            return f"a traceback: {type(error).__name__}: {error!s:.200}"
        return "read"

    target.write_bytes(real.read_bytes())
    assert read() == "read", "the genuine file is read; what it needs is imported by now"
    sys.addaudithook(hook)
    outcomes: Counter[str] = Counter()
    odd: list[str] = []
    slowest_s = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stream = forgeries(real, random.Random(seed))
    for _ in range(count):
        what, content = next(stream)
        target.write_bytes(content)
        began, watching = time.perf_counter(), True
        outcome = read()
        watching = False
        slowest_s = max(slowest_s, time.perf_counter() - began)
        outcomes[outcome if outcome in ("read", "refused") else "odd"] += 1
        if outcome not in ("read", "refused"):
            odd.append(f"{what}: {outcome}")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "outcomes": dict(outcomes),
        "odd": odd[:20],
        "watched": sorted(set(watched))[:20],
        "slowest_s": round(slowest_s, 2),
        "grown_mib": grown >> 10,
    }


if __name__ == "__main__":
    exporter.set_threads()
    for asked in sys.argv[3:]:
        kind, _, count = asked.partition("=")
        seen = read_all(kind, int(count), int(sys.argv[1]), Path(sys.argv[2]))
        print("\n" + json.dumps({"kind": kind, **seen}), flush=True)
