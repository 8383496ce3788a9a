"""The export stage end to end: files, receipts and refusals."""

import errno
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
from rich.progress import Progress

from tests.server import graphs
from visavis_export import exporter, repository
from visavis_export.errors import AccuracyFailed, ExportError, ReceiptFailed
from visavis_export.exporter import Request, export
from visavis_export.families import resnet
from visavis_export.listing import NAMES
from visavis_export.pictures.files import read_pictures
from visavis_export.pictures.synthetic import synthetic_pictures
from visavis_export.proof.accuracy_limits import AccuracyLimits
from visavis_export.repository import Exported
from visavis_server.card import METADATA_KEY, ModelDocument, parse_document
from visavis_server.models.model_files import ModelFile, scan
from visavis_server.models.onnx_file import read_onnx_file
from visavis_server.vision.families.heads import Heads

# One of each family; large models are exported manually before each release.
SMALL = ("resnet18", "yolov5n", "yolov5n-cls", "yolov5nu")
# Published: torchvision's and ultralytics/yolov5's tables, in millions.
PUBLISHED_PARAMETERS = {"resnet18": 11.7, "yolov5n": 1.9, "yolov5n-cls": 2.5, "yolov5nu": 2.6}


def run(request: Request) -> Exported:
    (exported,) = export(request, Progress(disable=True))
    return exported


def written(path: Path) -> ModelDocument:
    return parse_document(read_onnx_file(path).metadata[METADATA_KEY], str(path))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    out = tmp_path_factory.mktemp("models")
    return {name: run(Request(name, out, weights="random")) for name in SMALL}


@pytest.mark.parametrize("name", SMALL)
def test_random_weights_pass_their_receipt_and_are_marked(
    name: str, exported: dict[str, Exported]
) -> None:
    document = written(exported[name].path)
    assert document == exported[name].document
    assert document.provenance.random_weights
    assert document.receipt is not None
    assert len(document.receipt.pictures) >= 8
    assert all(picture.compared for picture in document.receipt.pictures)
    assert document.receipt.max_score_difference < 1e-3
    assert document.receipt.heat_map_tolerance == 1e-3
    assert all(p.max_heat_map_difference is not None for p in document.receipt.pictures)
    assert document.receipt.max_heat_map_difference is not None
    assert document.receipt.max_heat_map_difference < 1e-4
    millions = document.facts.parameter_count / 1e6
    assert millions == pytest.approx(PUBLISHED_PARAMETERS[name], abs=0.06)


@pytest.mark.parametrize("name", SMALL)
def test_the_graph_is_valid_and_only_its_batch_is_dynamic(
    name: str, exported: dict[str, Exported]
) -> None:
    model = onnx.load(exported[name].path)
    onnx.checker.check_model(model, full_check=True)
    assert all(opset.version <= 18 for opset in model.opset_import)
    for value in (*model.graph.input, *model.graph.output):
        first, *rest = value.type.tensor_type.shape.dim
        assert first.dim_param
        assert all(dimension.dim_value for dimension in rest)


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_gives_what_its_images_give_alone(name: str, exported: dict[str, Exported]) -> None:
    import onnxruntime as ort

    session = ort.InferenceSession(str(exported[name].path), providers=["CPUExecutionProvider"])
    (model_input,) = session.get_inputs()
    shape = model_input.shape[1:]
    batch = np.random.default_rng(0).random((3, *shape), np.float32)
    together = session.run(None, {model_input.name: batch})
    for index in range(3):
        alone = session.run(None, {model_input.name: batch[index : index + 1]})
        for whole, part in zip(together, alone, strict=True):
            scale = np.abs(part).max()
            assert np.abs(whole[index] - part[0]).max() <= 1e-3 * scale


def test_scores_of_random_weights_vary(exported: dict[str, Exported]) -> None:
    receipt_of = written(exported["yolov5n"].path).receipt
    assert receipt_of is not None
    assert len({picture.compared for picture in receipt_of.pictures}) > 3


def test_nothing_of_this_machine_is_in_the_file(exported: dict[str, Exported]) -> None:
    contents = exported["resnet18"].path.read_bytes()
    assert str(Path.home()).encode() not in contents
    assert str(Path(__file__).parents[2]).encode() not in contents


def test_exporting_again_adds_a_version_only_if_something_changed(tmp_path: Path) -> None:
    first = run(Request("yolov5n", tmp_path, weights="random", size=64))
    again = run(Request("yolov5n", tmp_path, weights="random", size=64))
    other = run(Request("yolov5n", tmp_path, weights="random", size=96))
    assert (first.unchanged, again.unchanged, other.unchanged) == (False, True, False)
    assert again.path == first.path
    assert other.path == tmp_path / "yolov5n" / "2" / "model.onnx"


def test_a_file_that_differs_from_pytorch_fails_with_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Means 1 % larger in the exported module alone move scores beyond the tolerance.
    def slightly_off(self: resnet._Explained, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.features(x)
        return self.logits(features * 1.01), features

    monkeypatch.setattr(resnet._Explained, "forward", slightly_off)
    with pytest.raises(ReceiptFailed, match=r"scores differ by 0\.\d+; the limit is 0\.001"):
        run(Request("resnet18", tmp_path, weights="random"))
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_whose_heat_maps_differ_fails_with_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = resnet._Explained.forward

    def slightly_off(self: resnet._Explained, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits, features = forward(self, x)
        return logits, features * 1.01

    monkeypatch.setattr(resnet._Explained, "forward", slightly_off)
    with pytest.raises(ReceiptFailed, match=r"heat maps differ by 0\.0\d+; the limit is 0\.001"):
        run(Request("resnet18", tmp_path, weights="random"))
    assert list(tmp_path.iterdir()) == []


def test_a_detector_whose_heat_maps_are_a_cell_off_fails_with_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_maps = Heads.class_maps

    def a_cell_off(self: Heads, outputs: list[Any], class_id: int) -> list[Any]:
        return [np.roll(each, 1, axis=0) for each in class_maps(self, outputs, class_id)]

    monkeypatch.setattr(Heads, "class_maps", a_cell_off)
    with pytest.raises(ReceiptFailed, match=r"heat maps differ by 0\.\d+; the limit is 0\.001"):
        run(Request("yolov5n", tmp_path, weights="random", size=160))
    assert list(tmp_path.iterdir()) == []


def test_given_pictures_are_in_the_receipt(tmp_path: Path) -> None:
    picture = tmp_path / "mine.jpg"
    picture.write_bytes(synthetic_pictures()["synthetic square"])
    made = run(Request("yolov5n-cls", tmp_path / "out", weights="random", pictures=(picture,)))
    assert made.document.receipt is not None
    assert made.document.receipt.pictures[0].name == "mine.jpg"
    assert len(made.document.receipt.pictures) >= 9


def test_the_synthetic_pictures_have_every_awkward_shape() -> None:
    import io

    from PIL import Image

    pictures = [Image.open(io.BytesIO(data)) for data in synthetic_pictures().values()]
    ratios = [picture.width / picture.height for picture in pictures]
    sides = [side for picture in pictures for side in picture.size]
    assert len(pictures) >= 8
    assert max(ratios) > 3
    assert {picture.size for picture in pictures} >= {(13, 9), (1, 3000)}
    assert max(sides) == 4096
    assert any(side % 2 for side in sides)
    assert {picture.mode for picture in pictures} >= {"RGB", "L", "RGBA", "CMYK"}
    assert {picture.getexif().get(0x0112) for picture in pictures} >= {1, 6}


def test_a_resnet_with_other_classes_takes_their_names_from_a_list(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "mine.pth"
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), weights)
    names = ("apple", "pear", "fig")
    request = Request("resnet18", tmp_path / "out", str(weights), name="fruit", class_names=names)
    document = run(request).document
    assert document.name == "fruit"
    assert document.label_set.labels == ("apple", "pear", "fig")
    assert document.label_set.name.startswith("custom-")
    assert not document.provenance.random_weights
    assert document.provenance.weights_source == "mine.pth"


def test_a_resnet_with_other_classes_and_no_names_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "mine.pth"
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), weights)
    with pytest.raises(ExportError, match=r"3 classes.*--class-names"):
        run(Request("resnet18", tmp_path / "out", str(weights)))


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "mine.pth"
    torch.save(torchvision.models.resnet34().state_dict(), weights)
    with pytest.raises(ExportError, match="are a ResNet-34, not resnet18; export it as resnet34"):
        run(Request("resnet18", tmp_path / "out", str(weights)))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "../evil"}, r"--name '\.\./evil' is not a valid"),
        ({"name": "two words"}, "--name 'two words' is not a valid"),
        ({"size": 320}, "--size is for detectors"),
        ({"transforms": "V3"}, "'V3' is unknown; choose V1 or V2"),
        ({"architecture": "yolov5n", "size": 0}, "--size is 0; it must be 32 to 4096"),
        ({"architecture": "yolov5n", "transforms": "V2"}, "--transforms is for ResNets only"),
        ({"architecture": "yolov5"}, "--weights FILE, or choose .* such as yolov5n"),
        ({"pictures": (Path("nowhere.jpg"),)}, "nowhere.jpg does not exist"),
        ({"precisions": ("fp32", "int4")}, "--precision 'int4' is unknown; choose from fp32"),
        ({"precisions": ("int8",)}, "int8 needs --calibration FOLDER with about 100 real pictures"),
        ({"labels": Path("labels.csv")}, "--labels needs --calibration FOLDER"),
        ({"calibration": Path("nowhere")}, "--calibration nowhere is not a folder"),
    ],
)
def test_invalid_options_are_refused_before_any_work(
    changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    request = replace(Request("resnet18", tmp_path / "out", "random"), **changes)
    with pytest.raises(ExportError, match=complaint):
        run(request)


@pytest.mark.parametrize("taken", ["out", "out/resnet18"])
def test_an_unwritable_output_is_refused_before_any_work(
    taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("a file")
    monkeypatch.setattr(exporter, "_original", lambda *_: pytest.fail("work was done"))
    with pytest.raises(ExportError, match=r"--out .*out can't be written: Not a directory"):
        run(Request("resnet18", tmp_path / "out", "random"))


def test_a_refused_export_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="can't read the given weights"):
        run(Request("resnet18", tmp_path, str(tmp_path / "nowhere.pth")))
    assert list(tmp_path.iterdir()) == []


def test_concurrent_exports_of_one_model_get_different_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 4
    together = threading.Barrier(count)
    looked = threading.local()

    def scan_together(out: Path) -> list[ModelFile]:
        found = scan(out)
        if not hasattr(looked, "once"):
            looked.once = True
            together.wait(20)  # All have seen an empty repository.
        return found

    monkeypatch.setattr(repository, "scan", scan_together)

    def put(number: int) -> Path:
        model = graphs.classifier_document()
        candidate = tmp_path / f"{number}.onnx"
        candidate.write_text(str(number))
        (exported,) = repository.publish(tmp_path / "out", [repository.Candidate(model, candidate)])
        assert not exported.unchanged
        return exported.path

    with ThreadPoolExecutor(count) as pool:
        paths = list(pool.map(put, range(count)))
    assert [path.read_text() for path in paths] == [str(number) for number in range(count)]
    versions = [path.name for path in (tmp_path / "out" / "colors").iterdir()]
    assert sorted(versions) == ["1", "2", "3", "4"]


def test_an_existing_version_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out" / "colors" / "1").mkdir(parents=True)
    (tmp_path / "out" / "colors" / "1" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "colors" / "2").write_text("a file")
    candidate = tmp_path / "candidate.onnx"
    candidate.write_text("new")
    (exported,) = repository.publish(
        tmp_path / "out", [repository.Candidate(graphs.classifier_document(), candidate)]
    )
    assert exported.path.parent.name == "3"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(source: Path, target: Path) -> None:
        Path(target).write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", half)
    out = tmp_path / "out"
    with pytest.raises(ExportError, match=r"--out .*out can't be written: No space left"):
        repository.publish(
            out, [repository.Candidate(graphs.classifier_document(), tmp_path / "a.onnx")]
        )
    assert list(out.rglob("*")) == []


def test_a_full_temporary_folder_is_named_with_advice() -> None:
    why = r"temporary folder /.* is full.*set TMPDIR"
    with pytest.raises(ExportError, match=why), exporter._work_folder():
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_invalid_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("no picture")
    with pytest.raises(ExportError, match=r"broken\.jpg"):
        run(Request("resnet18", tmp_path, "random", pictures=(tmp_path / "broken.jpg",)))


@pytest.mark.parametrize("given", ["calibration", "images"])
def test_an_invalid_picture_is_named_before_any_work(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "b.png").write_bytes(synthetic_pictures()["synthetic tiny"])
    (folder / "a.jpg").write_text("no picture")
    request = Request("resnet18", tmp_path / "out", "random")
    if given == "calibration":
        request = replace(request, calibration=folder)
    else:
        request = replace(request, pictures=(folder,))
    monkeypatch.setattr(exporter, "_original", lambda *_: pytest.fail("work was done"))
    with pytest.raises(ExportError, match=r"a\.jpg.*only JPEG, PNG and WebP"):
        run(request)


def test_pictures_with_the_same_name_are_all_kept(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.jpg").write_bytes(synthetic_pictures()["synthetic square"])
    names = read_pictures([tmp_path / "a", tmp_path / "b"])
    assert list(names) == ["same.jpg", "same 2.jpg"]


def test_v2_transforms_resize_to_232(tmp_path: Path) -> None:
    document = run(Request("resnet18", tmp_path, "random", transforms="V2")).document
    assert document.input.describe_resize() == "shorter side to 232, centre crop 224x224"


def test_an_unknown_name_is_answered_with_the_closest_one(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"'resnet51' .*did you mean resnet50\?"):
        run(Request("resnet51", tmp_path))


def test_every_promised_name_can_be_exported() -> None:
    promised = {f"resnet{depth}" for depth in (18, 34, 50, 101, 152)}
    promised |= {f"yolov5{s}{kind}" for s in "nsmlx" for kind in ("", "6", "u", "-cls")}
    promised |= {"yolov5", "yolov5-cls"}
    promised |= {
        f"{family}_resnet50_fpn{version}"
        for family in ("retinanet", "fasterrcnn")
        for version in ("", "_v2")
    }
    assert set(NAMES) == promised


@pytest.fixture(scope="module")
def labelled_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of thirteen pictures with arbitrary labels."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = ["file,class_index"]
    for index, (name, encoded) in enumerate(synthetic_pictures().items()):
        (folder / f"{name}.png").write_bytes(encoded)
        rows.append(f"{name}.png,{index}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def variants(
    labelled_pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Request, dict[str, Exported]]:
    request = Request(
        "yolov5n-cls",
        tmp_path_factory.mktemp("variants"),
        weights="random",
        name="mine",
        precisions=("fp32", "fp16", "int8"),
        calibration=labelled_pictures,
    )
    made = export(request, Progress(disable=True))
    return request, {one.document.precision: one for one in made}


def test_each_precision_is_a_separate_model_that_names_its_original(
    variants: tuple[Request, dict[str, Exported]],
) -> None:
    _, made = variants
    documents = {precision: written(one.path) for precision, one in made.items()}
    assert {p: (d.name, d.variant_of) for p, d in documents.items()} == {
        "fp32": ("mine", None),
        "fp16": ("mine-fp16", "mine"),
        "int8": ("mine-int8", "mine"),
    }
    assert len({document.facts.parameter_count for document in documents.values()}) == 1
    sizes = {precision: one.path.stat().st_size for precision, one in made.items()}
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    assert sizes["int8"] < 0.4 * sizes["fp32"]
    assert "calibrated with 6 of the 13 pictures" in documents["int8"].provenance.conversion
    assert "2 convolutions" in documents["int8"].provenance.conversion


def test_an_int8_receipt_records_differences_without_a_limit(
    variants: tuple[Request, dict[str, Exported]],
) -> None:
    _, made = variants
    receipt_of = made["int8"].document.receipt
    assert receipt_of is not None
    assert receipt_of.score_tolerance is None
    assert 1e-3 < receipt_of.max_score_difference < 1
    assert all(picture.same_top1 is not None for picture in receipt_of.pictures)


def test_labelled_pictures_give_every_precision_an_accuracy(
    variants: tuple[Request, dict[str, Exported]],
) -> None:
    _, made = variants
    for precision, one in made.items():
        measured = one.document.accuracy
        assert measured is not None
        assert (measured.metric, measured.pictures) == ("top-1", 13)
        # Seven pictures are too few to hold out, so the accuracy is measured on all thirteen.
        assert measured.held_out == (precision != "int8")


def test_exporting_variants_again_changes_nothing(
    variants: tuple[Request, dict[str, Exported]],
) -> None:
    request, made = variants
    (again,) = export(replace(request, precisions=("int8",)), Progress(disable=True))
    assert again.unchanged
    assert again.path == made["int8"].path


def test_a_file_that_loses_too_much_accuracy_is_not_written(
    labelled_pictures: Path, tmp_path: Path
) -> None:
    request = Request(
        "yolov5n-cls",
        tmp_path,
        weights="random",
        precisions=("fp32", "int8"),
        calibration=labelled_pictures,
        limits=AccuracyLimits(top1_drop=-101),
    )
    complaint = r"yolov5n-cls loses .* points of top-1; the limit is -101.*--max-top1-drop"
    with pytest.raises(AccuracyFailed, match=complaint):
        export(request, Progress(disable=True))
    assert list(tmp_path.iterdir()) == []
