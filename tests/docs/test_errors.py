"""The reference of errors has every message that the code raises."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from visavis import Client, VisavisError

from visavis_server.__main__ import main

from .workspace import Workspace

_DOCS = Path(__file__).parents[2] / "docs"
# Errors whose message is another error's, or that of the part that failed; the number of them.
_ELSEWHERE = {
    "CannotLoad('; '.join(errors))": 1,
    "CannotLoad(str(error))": 1,
    "CheckpointError(f'{path.name} is {identity.title}; {identity.advice}')": 1,
    "CheckpointError(f'{path.name} {complaint}')": 1,
    "CheckpointError(f'{path.name} {other}')": 1,
    "ExportError(str(error))": 3,
    "InvalidRequest(error.option, str(error))": 2,
    "StartupError(self._failed.result())": 1,
}


@pytest.fixture(scope="module")
def error_page() -> ModuleType:
    sys.path.insert(0, str(_DOCS))
    try:
        import error_page
    finally:
        sys.path.remove(str(_DOCS))
    module: ModuleType = error_page
    return module


@pytest.fixture(scope="module")
def messages(error_page: ModuleType) -> list[re.Pattern[str]]:
    """Return the messages of the page."""
    text = "\n".join(error_page.lines())
    found = re.findall(r"^\| `+ ?(.+?) ?`+ \|", text, re.MULTILINE)
    return [re.compile(re.escape(one).replace(re.escape("…"), ".*"), re.DOTALL) for one in found]


def test_no_message_is_left_out(error_page: ModuleType) -> None:
    left_out = Counter(each.code for _, left in error_page.all_reasons() for each in left)
    assert left_out == _ELSEWHERE


def jpeg() -> bytes:
    file = BytesIO()
    Image.new("RGB", (64, 48), (90, 120, 40)).save(file, "JPEG")
    return file.getvalue()


CALLS: dict[str, Callable[[Client], Any]] = {
    "no model": lambda client: client.classify(jpeg(), model="resnet5000"),
    "no version": lambda client: client.classify(jpeg(), model="resnet50", version=7),
    "another task": lambda client: client.detect(jpeg(), model="resnet50"),
    "a GIF": lambda client: client.classify(b"GIF89a" + bytes(30), model="resnet50"),
    "half a JPEG": lambda client: client.classify(jpeg()[:-200], model="resnet50"),
    "an option": lambda client: client.classify(jpeg(), model="resnet50", top_k=0),
    "a label": lambda client: client.detect(jpeg(), model="yolov5n", labels=["unicorn"]),
    "no heat map": lambda client: client.classify(jpeg(), model="resnet50", explain=True),
    "a baseline": lambda client: client.compare(jpeg(), baseline="resnet5000"),
    "no task": lambda client: client.compare(jpeg(), models=["yolov5n", "nothing"]),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_a_caller_reads_is_on_the_page(
    call: str, here: Workspace, messages: list[re.Pattern[str]]
) -> None:
    with Client(here.grpc) as client, pytest.raises(VisavisError) as raised:
        CALLS[call](client)
    message = raised.value.message
    assert [each.pattern for each in messages if each.fullmatch(message)], message


def test_what_a_shell_reads_is_on_the_page(
    here: Workspace, messages: list[re.Pattern[str]]
) -> None:
    url = f"http://{here.http}/visavis.v1.VisionService/Detect"
    command = ["curl", "-s", "-F", "image=street.jpg", "-F", "model=yolov5n", url]
    done = subprocess.run(command, capture_output=True, check=True)
    message = json.loads(done.stdout)["message"]
    assert [each.pattern for each in messages if each.fullmatch(message)], message


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--models nowhere", 1),
        ("--http 0.0.0.0:8000", 2),
        ("--tokens street.jpg", 1),
        ("--device gpu", 2),
        ("--open", 2),
    ],
)
def test_what_an_operator_reads_is_on_the_page(
    arguments: str,
    code: int,
    here: Workspace,
    messages: list[re.Pattern[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(here.folder)
    assert main(["--grpc", "127.0.0.1:0", *arguments.split()]) == code
    message = capsys.readouterr().err.strip().removeprefix("visavis: ")
    if message.startswith("settings: "):
        message = re.sub(r"^settings: (?:\w+: )?|, got '[^']*'$", "", message)
    assert [each.pattern for each in messages if each.fullmatch(message)], message
