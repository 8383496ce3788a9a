"""The image's file keeps its rules, and what it installs is what the product asks for."""

import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from visavis_server.settings import Settings

_ROOT = Path(__file__).parents[2]
_FILE = _ROOT / "deploy" / "Containerfile"
_PINNED = sorted((_ROOT / "deploy").glob("requirements*.txt"))
_RUNTIMES = {
    "requirements.txt": "onnxruntime-gpu",
    "requirements-cpu.txt": "onnxruntime",
    "requirements-cuda.txt": "onnxruntime-gpu",
}
_HADOLINT = Path(sys.executable).with_name("hadolint")


def _instructions(stage: int) -> list[tuple[str, str]]:
    """Return the instructions of a stage: the name, and the rest with its lines joined."""
    text = re.sub(r"^#.*\n", "", _FILE.read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    stages: list[list[tuple[str, str]]] = []
    for line in filter(None, lines):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append([])
        if stages:
            stages[-1].append((name, " ".join(rest.split())))
    return stages[stage]


def _values(stage: int, name: str) -> list[str]:
    return [rest for found, rest in _instructions(stage) if found == name]


def _linted(file: Path) -> str:
    done = subprocess.run([_HADOLINT, file], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    assert _linted(_FILE) == ""
    worse = tmp_path / "Containerfile"
    worse.write_text(_FILE.read_text("utf-8") + "RUN cd / && pip install numpy\n", "utf-8")
    assert "DL3013" in _linted(worse)


def test_the_last_stage_only_copies_and_is_not_root() -> None:
    assert _values(-1, "RUN") == []
    (user,) = _values(-1, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "Kubernetes checks numbers only"
    chart = (_ROOT / "deploy/helm/visavis/templates/deployment.yaml").read_text("utf-8")
    assert f"runAsUser: {user.partition(':')[0]}\n" in chart
    assert _values(-1, "ENTRYPOINT") == ['["visavis"]']


def test_the_images_variables_are_settings_and_its_ports_those_that_it_listens_at() -> None:
    (variables,) = _values(-1, "ENV")
    found = dict(pair.split("=", 1) for pair in variables.split())
    ours = {name.removeprefix("VISAVIS_").lower(): value for name, value in found.items()}
    settings = {name: ours[name] for name in ours if f"VISAVIS_{name.upper()}" in found}
    assert {"grpc", "http", "models"} <= settings.keys() <= Settings.model_fields.keys()
    listening = {settings[name].rpartition(":")[2] for name in ("grpc", "http")}
    (ports,) = _values(-1, "EXPOSE")
    assert set(ports.split()) == listening


def test_only_what_is_copied_is_sent_to_the_builder() -> None:
    ignored = (_ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored
    sent = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    copied = [line.split()[0] for line in _values(0, "COPY")]
    assert copied
    for source in copied:
        name = source.replace("${REQUIREMENTS}", "requirements-cpu.txt")
        assert any(fnmatch.fnmatch(name, pattern) for pattern in sent), source


def _pins(file: Path) -> dict[str, Requirement]:
    lines = re.findall(r"^[A-Za-z0-9][^\\\n]*", file.read_text("utf-8"), re.MULTILINE)
    found = [Requirement(line.strip()) for line in lines]
    return {canonicalize_name(each.name): each for each in found}


@pytest.mark.parametrize("file", _PINNED, ids=lambda file: file.name)
def test_the_pinned_packages_meet_what_the_product_asks_for(file: Path) -> None:
    server = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    client = tomllib.loads((_ROOT / "clients/python/pyproject.toml").read_text("utf-8"))["project"]
    extras = server["optional-dependencies"]
    lines = [*server["dependencies"], *client["dependencies"], *extras["http"], *extras["trace"]]
    pins = _pins(file)
    replaced = {"opencv-python": "opencv-python-headless"}
    for line in lines:
        wanted = Requirement(line)
        name = replaced.get(wanted.name, wanted.name)
        if name == "visavis" or name.startswith("onnxruntime"):
            continue
        assert name in pins, f"run make lock: {file.name} lacks {name}"
        (version,) = (each.version for each in pins[name].specifier)
        assert wanted.specifier.contains(version), f"run make lock: {name} {version}"
    assert {name for name in pins if name.startswith("onnxruntime")} == {_RUNTIMES[file.name]}
    # OpenCV with windows needs libGL; PyTorch is the export's.
    assert not pins.keys() & {"opencv-python", "torch", "torchvision", "ultralytics", "onnx"}
    assert ("nvidia-cudnn-cu13" in pins) == (file.name == "requirements-cuda.txt")


def test_every_file_of_pinned_packages_is_tested() -> None:
    assert {file.name for file in _PINNED} == _RUNTIMES.keys()
