"""Malicious checkpoints: read as data, or refused with an error; never run."""

import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.surroundings import Surroundings
from visavis_export.checkpoints import pickled
from visavis_export.checkpoints.archive import MAX_RECORDS, check_torch_file
from visavis_export.checkpoints.checkpoint import (
    read_checkpoint,
    read_state_dict,
    read_yolo_checkpoint,
)
from visavis_export.checkpoints.description import Activation, read_activation, read_description
from visavis_export.checkpoints.published import describe
from visavis_export.errors import CheckpointError, UnsafeCheckpoint

from .. import originals
from ..forgeries import EVIL, KINDS, genuine, zipped


def test_a_payload_in_any_place_is_never_run(tmp_path: Path) -> None:
    counts = dict(zip(KINDS, (60, 20, 10, 10), strict=True))
    found = Surroundings.under(tmp_path)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.export.forgeries", "1", str(tmp_path)),
            *(f"{kind}={count}" for kind, count in counts.items()),
        ],
        cwd=found.elsewhere,
        env=found.environment_of_tests(),
        stdout=subprocess.PIPE,
        check=True,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b'{"kind"')]
    assert [report["kind"] for report in reports] == list(KINDS)
    for report in reports:
        assert report["odd"] == []
        assert report["watched"] == []
        assert sum(report["outcomes"].values()) == counts[report["kind"]]
        assert report["outcomes"]["refused"] > 0
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_yaml_with_code_starts_no_program_and_calls_nobody(tmp_path: Path) -> None:
    """Started as a user starts it; the same file made ultralytics run the expression."""
    path = genuine("yolov5nu", tmp_path)
    saved = torch.load(path, weights_only=False)
    saved["model"].yaml["activation"] = f"nn.SiLU() if {EVIL} else nn.SiLU()"
    torch.save(saved, path)
    command = Path(sys.executable).with_name("visavis")
    trace = tmp_path / "trace"
    export = [command, "export", "yolov5nu", "--weights", path, "--out", tmp_path / "models"]
    done = subprocess.run(
        list(map(str, ["strace", "-f", "-qq", "-e", "trace=execve,connect", "-o", trace, *export])),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    refusal = " ".join(done.stderr.split())
    assert "the yaml's activation is" in refusal
    assert "Traceback" not in refusal
    lines = trace.read_text(errors="replace").splitlines()
    started = re.findall(r'execve\("(?:[^"]*/)?([^"]*)".* = 0', "\n".join(lines))
    assert set(started) <= {"visavis", "ldconfig"}  # ctypes looks for libraries while importing
    assert not [line for line in lines if re.search(r"connect\(.*AF_INET", line)]
    assert not (tmp_path / "PWNED").exists()
    assert not (tmp_path / "models").exists() or not list((tmp_path / "models").iterdir())


@pytest.mark.parametrize(
    ("text", "activation"),
    [
        (None, Activation("SiLU")),
        ("nn.SiLU()", Activation("SiLU")),
        ("torch.nn.ReLU(inplace=True)", Activation("ReLU")),
        ("nn.LeakyReLU(0.1)", Activation("LeakyReLU", 0.1)),
        ("nn.LeakyReLU(negative_slope=0.2, inplace=True)", Activation("LeakyReLU", 0.2)),
        ("nn.Hardswish()", Activation("Hardswish")),
    ],
)
def test_an_activation_is_read_by_its_spelling(text: str | None, activation: Activation) -> None:
    assert read_activation(text) == activation


@pytest.mark.parametrize(
    "text", [EVIL, "nn.Module()", "nn.SiLU", "nn.ReLU(0.1)", f"nn.LeakyReLU({EVIL})", "", 7, ["a"]]
)
def test_an_unknown_activation_is_refused_by_name(text: object) -> None:
    with pytest.raises(CheckpointError, match=r"activation is .* unknown"):
        read_activation(text)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"backbone": [[-1, 1, "os.system", ["touch PWNED"]]]}, "module is 'os.system'"),
        ({"backbone": [[-1, 1, "nn.Module", []]]}, "module is 'nn.Module'"),
        ({"backbone": [[-1, 1, "Conv", [EVIL]]]}, r'argument is "__import__\('),
        ({"backbone": [[-1, 10**9, "C3", [64]]]}, "repeats is 1000000000"),
        ({"backbone": [[-1, 1, "Conv", [10**12, 3]]]}, "argument is 1000000000000"),
        ({"backbone": [[EVIL, 1, "Conv", [64]]]}, "from is"),
        ({"backbone": [[-1, 1, "Conv", [64]]] * 1000}, "backbone is a list"),
        ({"nc": 10**12}, "nc is 1000000000000"),
        ({"width_multiple": float("inf")}, "width_multiple is inf"),
        ({"depth_multiple": float("nan")}, "depth_multiple is nan"),
        ({"anchors": [["a"]]}, "anchors is 'a'"),
        ({"ch": 4}, "ch is 4"),
        ({"loss": "focal"}, "key is 'loss'"),
    ],
)
def test_a_yaml_with_unknown_parts_is_refused_by_their_names(
    change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        read_description(describe("n", 2) | change)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "net.pt"
    path.write_bytes(content)
    return path


def a_pickle(folder: Path, *instructions: bytes) -> Path:
    """Return an archive whose pickle consists of these instructions."""
    return written(folder, zipped({"a/data.pkl": b"\x80\x02" + b"".join(instructions) + b"."}))


def bombs() -> dict[str, tuple[bytes, ...]]:
    """Return small pickles that expand to huge objects."""
    memo_index = b"r" + struct.pack("<I", 0xFFFF_FFFF)
    laughs = b"]q\x00" + b"".join(
        b"]q%c(h%ch%ce" % (level, level - 1, level - 1) for level in range(1, 40)
    )
    return {
        "forty lists, each the next one twice": (laughs,),
        "a list that holds itself": (b"]q\x00h\x00a",),
        "a hundred thousand nested lists": (b"](" * 100_000, b"e" * 100_000),
        "nested tuples as a key": (b"}K\x01", b"\x85" * 200_000, b"K\x01s"),
        "a memo of four billion": (b"]", memo_index),
        "a text of four billion letters": (b"X\xff\xff\xff\xff", b"abc"),
        "a number of a megabyte": (b"\x8b", struct.pack("<i", 1 << 20), b"\x01" * (1 << 20)),
        "a million and more instructions": (b"N0" * 600_000, b"N"),
        "a list made again and again": (
            *(b"]q\x00(", b"(K\x01K\x02l" * 10_000, b"e"),
            b"ccollections\nOrderedDict\nq\x01h\x00\x85R0h\x01h\x00\x85R" * 1000,
        ),
    }


@pytest.mark.parametrize("bomb", bombs())
@pytest.mark.parametrize("read", [read_state_dict, read_yolo_checkpoint])
def test_a_pickle_bomb_is_refused_in_a_moment(
    bomb: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    model = b"}X\x05\x00\x00\x00modelcmodels.yolo\nModel\n)\x81}X\x01\x00\x00\x00x"
    path = a_pickle(tmp_path, model, *bombs()[bomb], b"sbs")
    began = time.monotonic()
    with pytest.raises(CheckpointError) as refused:
        read(path)
    assert time.monotonic() - began < 30
    assert len(str(refused.value)) < 500


def tensor(shape: tuple[int, ...], stride: tuple[int, ...], elements: int, data: bytes) -> bytes:
    """Return a file whose tensor declares an arbitrary shape, offset and size."""

    class Stored:
        def __reduce__(self) -> tuple[Any, ...]:
            return (
                torch._utils._rebuild_tensor_v2,
                (Key(), 0, shape, stride, False, {}),
            )

    class Key:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: object) -> object:
            is_key = isinstance(thing, Key)
            return ("storage", torch.FloatStorage, "0", "cpu", elements) if is_key else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump({"fc.weight": Stored()})
    return zipped({"a/data.pkl": buffer.getvalue(), "a/data/0": data})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (tensor((10**6, 10**6), (0, 0), 4, bytes(16)), "claim 1000000000000 elements, but only 4"),
        (tensor((4, 4), (0, 1), 4, bytes(16)), "claim 16 elements, but only 4"),
        (tensor((2,), (4,), 4, bytes(16)), "reaches beyond the 4 elements of its storage"),
        (tensor((4,), (1,), 4, bytes(12)), "has 12 bytes, but its tensors need 16"),
        (tensor((4,), (1,), 10**12, bytes(16)), "has 16 bytes, but its tensors need 4000000000000"),
        (tensor((-4,), (1,), 4, bytes(16)), "damaged"),
        (tensor((1,) * 100, (1,) * 100, 1, bytes(4)), "damaged"),
    ],
)
def test_a_tensor_that_lies_about_its_size_is_refused(
    content: bytes, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        read_state_dict(written(tmp_path, content))


def archive(compression: int = zipfile.ZIP_STORED, **records: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as made:
        for name, content in records.items():
            made.writestr(f"a/{name}.pkl", content)
    return buffer.getvalue()


def many_records() -> bytes:
    end = b"PK\x05\x06" + bytes(4) + struct.pack("<HHIIH", 0xFFFF, 0xFFFF, 0, 0, 0)
    end_64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1 << 40, 1 << 40, 0, 0)
    start = b"PK\x03\x04" + bytes(60)
    return start + end_64 + b"PK\x06\x07" + struct.pack("<IQI", 0, len(start), 1) + end


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (archive(zipfile.ZIP_DEFLATED, data=bytes(100 << 20)), "has compressed records"),
        (many_records(), f"has {1 << 40} records; the limit is {MAX_RECORDS}"),
    ],
)
def test_an_archive_that_expands_is_refused_unread(
    content: bytes, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        check_torch_file(written(tmp_path, content))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_duplicate_records_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("a/data.pkl", b"\x80\x02}.")
        made.writestr("a/data.pkl", b"\x80\x02N.")
    with pytest.raises(CheckpointError, match="two records with the same name"):
        check_torch_file(written(tmp_path, buffer.getvalue()))


def test_damaged_weights_are_noticed_by_their_checksum(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"fc.weight": torch.rand(100, 100)}, path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1000] = bytes(1000)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged \(Bad CRC-32 .*download or copy it again"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["x" * 1000], "class 0 has 1000 characters; it must have 1 to 256"),
        (["cat", "\x1b[31mdog"], "class 1 has control characters"),
        (["x"] * 100_000, "there are 100000 class names"),
        ([["cat"]], "class 0 is not text"),
        ([""], "class 0 has 0 characters"),
    ],
)
def test_invalid_class_names_are_refused(names: list[Any], complaint: str, tmp_path: Path) -> None:
    model = originals.DetectionModel(originals.small_yaml())
    model.names = names
    with pytest.raises(CheckpointError, match=f"{complaint}.*--class-names FILE"):
        read_yolo_checkpoint(originals.save(model, tmp_path / "net.pt"))


@pytest.mark.parametrize("name", ["\x1b[31m", "a" * 600, "a b", ""])
def test_a_tensor_without_a_proper_name_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({name: torch.rand(2)}, path)
    with pytest.raises(CheckpointError, match=r"a tensor with the invalid name") as refused:
        read_state_dict(path)
    assert str(refused.value).isprintable()


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="is a pipe"):
        read_checkpoint(path)


def test_what_is_named_is_looked_for_nowhere(tmp_path: Path) -> None:
    """Names of a checkpoint's own kind are kept as text, even where they could be imported."""
    path = a_pickle(tmp_path, b"cexport.errors\nExportError\n")
    with pytest.raises(UnsafeCheckpoint, match=r"names export\.errors\.ExportError"):
        read_checkpoint(path)
    path = a_pickle(tmp_path, b"cpathlib\nPath\n)R")
    assert read_checkpoint(path).class_path == "pathlib.Path"
    assert pickled.shown("\x1b" * 1000) == "\\x1b" * 15 + "…"


def legacy(tmp_path: Path) -> Path:
    """Return a file as torch before 1.6 wrote it."""
    path = tmp_path / "net.pt"
    torch.save({"weight": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    return path


def test_what_follows_an_old_checkpoint_is_never_read(tmp_path: Path) -> None:
    path = legacy(tmp_path)
    os.truncate(path, path.stat().st_size + (1 << 31))
    tracemalloc.start()
    try:
        assert torch.equal(read_checkpoint(path)["weight"].tensor(), torch.ones(3))
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_an_old_checkpoint_without_end_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    path = legacy(tmp_path)
    head = path.read_bytes()[:15]  # the magic number
    path.write_bytes(head + b"\x80\x02c")  # a name that goes on until the next line break
    os.truncate(path, 1 << 31)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"net\.pt is damaged"):
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 512 << 20
    finally:
        tracemalloc.stop()
