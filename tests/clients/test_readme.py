import re
from pathlib import Path

import pytest
import visavis
from google.rpc import code_pb2, error_details_pb2
from visavis.commands.failures import EXIT_CODES

from . import canned, fakes
from .fakes import FakeServer, refusal

README = Path(__file__).parents[2] / "clients" / "README.md"
BLOCKS = [
    block
    for readme in (README, README.parent / "python" / "README.md")
    for block in re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
]


@pytest.mark.parametrize("code", BLOCKS)
def test_every_python_example_runs(
    code: str, fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse_zero(request, context):
        if request.HasField("top_k") and request.top_k == 0:
            info = error_details_pb2.RequestInfo(request_id="3f2a")
            detail = fakes.bad_field("top_k", "starts at 1")
            refusal(code_pb2.INVALID_ARGUMENT, "top_k is 0", detail, info)(request, context)
        if context.time_remaining() < 1:
            refusal(code_pb2.DEADLINE_EXCEEDED, "too late")(request, context)
        return canned.CLASSIFIED

    fake.answers["Classify"] = refuse_zero
    (tmp_path / "bus.jpg").write_bytes(b"jpeg")
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("127.0.0.1:8001", fake.address), "README.md", "exec"), {})


def test_exit_codes_are_those_of_the_command():
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", README.read_text(), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


def test_public_names_can_all_be_imported():
    assert all(hasattr(visavis, name) for name in visavis.__all__)
