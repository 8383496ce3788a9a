"""The gate on real weights: it passes the good model, fails a damaged one, and can say neither."""

import shutil
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from visavis.commands import main

from visavis_export.exporter import Request, export

PICTURES = 50
# ResNet-18 names the class of about three in four of these pictures.
LIMIT = "top1=0.5"


@pytest.fixture(scope="module")
def repositories(
    real_models: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """ResNet-18, as it is, and with noise as large as its weights on one block's."""
    folder = tmp_path_factory.mktemp("gate")
    found = {"good": folder / "good", "damaged": folder / "damaged"}
    shutil.copytree(real_models / "resnet18", found["good"] / "resnet18")
    state = torch.load(weights / "resnet18.pth", weights_only=True)
    noise = torch.Generator().manual_seed(0)
    for name, tensor in state.items():
        if name.startswith("layer3") and name.endswith("conv1.weight"):
            spread = 2 * tensor.float().std()
            state[name] = tensor + spread * torch.randn(tensor.shape, generator=noise)
    torch.save(state, folder / "resnet18.pth")
    given = str(folder / "resnet18.pth")
    export(Request("resnet18", found["damaged"], weights=given), Progress(disable=True))
    return found


@pytest.fixture(scope="module")
def listed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "listed.txt"
    chosen = sorted((images / "imagenet").glob("*.JPEG"))[:PICTURES]
    file.write_text("".join(f"{path}\n" for path in chosen))
    return file


def gate(listed: Path, images: Path, repository: Path, *options: object) -> int:
    labels = images / "imagenet" / "labels.csv"
    asked = ["compare", listed, "--labels", labels, "--repository", repository, *options]
    return main([str(each) for each in asked])


def test_the_gate_passes_the_good_model_and_fails_the_damaged_one(
    listed: Path,
    images: Path,
    repositories: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = tmp_path / "before.json"
    good = gate(listed, images, repositories["good"], "--fail-under", LIMIT, "--json", before)
    assert good == 0
    assert "passed: resnet18: top1 is 0." in capsys.readouterr().out
    limits = ("--fail-under", LIMIT, "--baseline", before, "--max-drop", "top1=0.02")
    assert gate(listed, images, repositories["damaged"], *limits) == 1
    said = capsys.readouterr().out
    assert "failed: resnet18: top1 is 0." in said
    assert "failed: resnet18: top1 fell by 0." in said


def test_eight_pictures_cannot_tell(
    listed: Path,
    images: Path,
    repositories: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    eight = tmp_path / "eight.txt"
    eight.write_text("".join(listed.read_text().splitlines(keepends=True)[:8]))
    answers = ("--answers", tmp_path / "answers.jsonl")
    limit = (*answers, "--fail-under", "top1=0.75")
    assert gate(eight, images, repositories["good"], *limit) == 0
    assert "can't tell: resnet18: top1 is" in capsys.readouterr().out
    assert gate(eight, images, repositories["good"], *limit, "--strict") == 1
