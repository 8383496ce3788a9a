"""The proofs of `python -m tests.gpu` on a real GPU, and the script itself on any machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import graphs
from tests.surroundings import Surroundings

from .proofs import PROOFS
from .site import Site, made_up, missing, pictures


@pytest.fixture(scope="module", params=["cuda", "tensorrt"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    if why := missing(request.param):
        pytest.skip(f"needs a GPU: {why}")
    real_models: Path = request.getfixturevalue("real_models")  # exported for a GPU only
    images = os.environ.get("VISAVIS_IMAGES")
    files = pictures(Path(images) if images else None)
    return Site.of(
        request.param, real_models, files or made_up(tmp_path_factory.mktemp("pictures")), 1.0
    )


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.__name__)
def test_on_a_gpu(site: Site, proof: object) -> None:
    for file in site.models:
        if file.name in ("resnet50", "yolov5n"):
            proof(site, file)  # type: ignore[operator]


def run(where: Surroundings, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "tests.gpu", *options],
        capture_output=True,
        text=True,
        env=where.environment_of_tests(),
        cwd=where.elsewhere,
        check=False,
    )


def test_the_script_proves_and_measures_with_the_cpu_in_a_gpus_place(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "colors" / "1"
    folder.mkdir(parents=True)
    contents = graphs.export(graphs.classifier(10), graphs.classifier_document())[0]
    (folder / "model.onnx").write_bytes(contents)
    where = Surroundings.under(tmp_path)
    done = run(where, "--cpu", "--models", str(tmp_path / "models"), "--seconds", "0.2")
    assert done.returncode in (0, 1), done.stderr
    for proof in PROOFS:
        assert f"{proof.__name__.replace('_', ' ')}:" in done.stdout, done.stdout
    # A busy machine may show one stream faster than two; everything else must hold.
    failed = [line for line in done.stdout.splitlines() if "✗" in line and "streams" not in line]
    assert not failed, done.stdout
    assert done.stdout.count("bottleneck:") == 3


@pytest.mark.skipif(not missing("cuda"), reason="there is a GPU")
def test_without_a_gpu_the_script_says_what_is_missing(tmp_path: Path) -> None:
    done = run(Surroundings.under(tmp_path))
    assert done.returncode == 2
    assert done.stdout.startswith("nothing to prove here: ")
