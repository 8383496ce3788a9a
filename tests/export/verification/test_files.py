"""Files of each kind: without metadata, with a JSON beside it, classifiers, and our own exports."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
from rich.progress import Progress

from visavis_export.errors import ExportError
from visavis_export.exporter import Request as ExportRequest
from visavis_export.exporter import export
from visavis_export.families import random_weights
from visavis_export.verification.graph_layers import precision_of
from visavis_export.verification.originals import read_original
from visavis_export.verification.outcome import Outcome, Stage
from visavis_export.verification.verify import Request, verify
from visavis_server.card import METADATA_KEY
from visavis_server.models.onnx_file import metadata_bytes, read_onnx_file

from .. import originals
from . import graphs
from .conftest import PICTURES, Exported

pytestmark = pytest.mark.filterwarnings("ignore")


def without_metadata(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def mistakes(outcome: Outcome) -> list[str]:
    return [one.mistake for one in outcome.findings]


def test_a_file_without_metadata_is_read_by_its_shapes(exported: Exported, tmp_path: Path) -> None:
    file = exported.changed(tmp_path / "bare.onnx", without_metadata)
    outcome = exported.verified(tmp_path, file)
    assert outcome.same and outcome.declared == ""
    assert "says nothing of itself" in outcome.notes[0]


def test_another_input_size_in_the_file_is_named(exported: Exported, tmp_path: Path) -> None:
    outcome = exported.verified(tmp_path, size=640)
    assert outcome.begins is Stage.PREPROCESSING
    assert mistakes(outcome) == ["size"]
    assert "320 × 320; the original's is 640 × 640" in outcome.findings[0].says
    # At the file's own size its graph is the original's.
    assert all(picture.stages[Stage.GRAPH].same for picture in outcome.pictures)


@pytest.fixture
def declared(exported: Exported, tmp_path: Path) -> Any:
    """Return a function that verifies the file with a changed document in it."""
    from visavis_server.models.ultralytics_file import document_of
    from visavis_server.runtime.providers import CPU, SessionConfig
    from visavis_server.runtime.session import Session

    session = Session(exported.file, CPU, SessionConfig(tmp_path))
    metadata = read_onnx_file(exported.file).metadata
    document = document_of("model", metadata, session, "here").model_dump(mode="json")

    def declared(change: Any) -> Outcome:
        change(document)
        file = tmp_path / "declared.onnx"
        file.write_bytes(
            exported.file.read_bytes() + metadata_bytes({METADATA_KEY: json.dumps(document)})
        )
        return exported.verified(tmp_path, file)

    return declared


def test_a_letterbox_padded_with_black_is_named(declared: Any) -> None:
    outcome = declared(lambda document: document["input"]["resize"].update(pad_value=0))
    assert outcome.begins is Stage.PREPROCESSING
    assert mistakes(outcome) == ["pad"]
    assert "the border is filled with 0; the original's is 114" in outcome.findings[0].says
    assert all(picture.stages[Stage.GRAPH].same for picture in outcome.pictures)
    assert all(picture.stages[Stage.POSTPROCESSING].same for picture in outcome.pictures)


def test_a_declared_mean_and_std_are_named(declared: Any) -> None:
    def change(document: Any) -> None:
        document["input"].update(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

    outcome = declared(change)
    assert outcome.begins is Stage.PREPROCESSING
    assert mistakes(outcome) == ["mean and std added"]


def test_other_thresholds_are_named(declared: Any) -> None:
    outcome = declared(lambda document: document["detection_defaults"].update(iou_threshold=0.2))
    assert outcome.begins is Stage.POSTPROCESSING
    assert mistakes(outcome) == ["thresholds"]
    assert "score 0.25 and IoU 0.2; the original's are 0.25 and 0.7" in outcome.findings[0].says


def test_other_class_names_are_named(declared: Any) -> None:
    def change(document: Any) -> None:
        document["label_set"]["labels"][3] = "a zebra"

    outcome = declared(change)
    assert outcome.begins is Stage.POSTPROCESSING
    assert mistakes(outcome) == ["names"]
    assert (
        "class 3 is called 'a zebra'; the original calls it 'thing 3'" in outcome.findings[0].says
    )


def test_a_changed_digest_is_named(declared: Any) -> None:
    outcome = declared(lambda document: document.update(digest="0" * 64))
    assert mistakes(outcome) == ["changed"] and not outcome.same


@pytest.fixture(scope="module")
def yolov5(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a small anchor-based YOLOv5's checkpoint, and our export of it."""
    folder = tmp_path_factory.mktemp("yolov5")
    model = originals.lively(originals.DetectionModel(originals.small_yaml()))
    checkpoint = originals.save(model, folder / "best.pt", opt={"imgsz": 128})
    request = ExportRequest("yolov5", folder, weights=str(checkpoint), name="small")
    (made,) = export(request, Progress(disable=True))
    return checkpoint, made.path


def test_our_own_export_is_the_same(yolov5: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, file = yolov5
    outcome = verify(Request(file, checkpoint, PICTURES), tmp_path)
    assert outcome.same and outcome.declared == "its own document"
    assert outcome.pictures[0].answers.both > 0


def test_a_damaged_layer_of_our_own_export_is_named(
    yolov5: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint, file = yolov5

    def damage(number: int, weights: np.ndarray) -> np.ndarray:
        return -weights if number == 1 else weights

    model = onnx.load(file)
    graphs.with_weights(model, damage)
    onnx.save(model, tmp_path / "damaged.onnx")
    outcome = verify(Request(tmp_path / "damaged.onnx", checkpoint, PICTURES), tmp_path)
    assert mistakes(outcome) == ["changed", "some weights"]
    assert "model.1.conv" in outcome.findings[1].says


def resnet(folder: Path) -> tuple[torch.nn.Module, Path]:
    """Return torchvision's ResNet-18 with random weights, and its state_dict's file."""
    random_weights.seed()
    module = torchvision.models.resnet18(num_classes=10)
    spread = random_weights.Spread(module.fc, torch.zeros(10), torch.full((10,), 6.0))
    images = random_weights.images(lambda picture: picture.resize((224, 224)))
    random_weights.calibrate(module, [spread], (images - 0.45) / 0.225)
    torch.save(module.state_dict(), folder / "resnet18.pth")
    return module, folder / "resnet18.pth"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a ResNet's state_dict and torch's own export of it, without metadata."""
    folder = tmp_path_factory.mktemp("resnet")
    module, checkpoint = resnet(folder)
    file = folder / "resnet18.onnx"
    torch.onnx.export(module, (torch.zeros(1, 3, 224, 224),), file, dynamo=False)
    return checkpoint, file


def test_torchs_own_export_of_a_resnet_is_the_same(
    classifier: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint, file = classifier
    outcome = verify(Request(file, checkpoint, PICTURES), tmp_path)
    assert outcome.same and "ResNet-18" in outcome.original


@pytest.mark.parametrize(
    ("change", "mistake", "stage"),
    [
        (
            lambda m: graphs.first(m, ("Sub", graphs.MEAN), ("Div", graphs.STD)),
            "graph normalises",
            "graph",
        ),
        (
            lambda m: graphs.first(m, ("Mul", graphs.STD), ("Add", graphs.MEAN)),
            "graph undoes mean and std",
            "graph",
        ),
        (
            lambda m: graphs.last(m, "Gather", np.array([1, 0, *range(2, 10)], np.int64), axis=1),
            "class order",
            "graph",
        ),
    ],
)
def test_what_is_wrong_with_a_classifiers_graph_is_named(
    classifier: tuple[Path, Path], tmp_path: Path, change: Any, mistake: str, stage: str
) -> None:
    checkpoint, file = classifier
    model = onnx.load(file)
    change(model)
    onnx.save(model, tmp_path / "changed.onnx")
    outcome = verify(Request(tmp_path / "changed.onnx", checkpoint, PICTURES), tmp_path)
    assert outcome.begins == stage
    assert mistakes(outcome) == [mistake]


def test_softmax_twice_in_the_graph_is_named(classifier: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, file = classifier
    model = onnx.load(file)
    graphs.last(model, "Softmax", axis=1)
    onnx.save(model, tmp_path / "once.onnx")
    assert verify(Request(tmp_path / "once.onnx", checkpoint, PICTURES), tmp_path).same
    output = model.graph.output[0].name
    model.graph.node[-1].output[0] = "once"
    model.graph.node.append(onnx.helper.make_node("Softmax", ["once"], [output], axis=1))
    onnx.save(model, tmp_path / "twice.onnx")
    outcome = verify(Request(tmp_path / "twice.onnx", checkpoint, PICTURES), tmp_path)
    assert mistakes(outcome) == ["graph softmax twice"]


def test_a_resnet_with_the_other_transforms_is_named(
    classifier: tuple[Path, Path], tmp_path: Path
) -> None:
    """The file, exported with the transforms of V1 in its document, against V2's original."""
    checkpoint, _ = classifier
    names = tmp_path / "names.txt"
    labels = tuple(f"class {i}" for i in range(10))
    names.write_text("\n".join(labels))
    request = ExportRequest("resnet18", tmp_path, weights=str(checkpoint), class_names=labels)
    (made,) = export(request, Progress(disable=True))
    assert verify(Request(made.path, checkpoint, PICTURES, labels), tmp_path).same
    outcome = verify(Request(made.path, checkpoint, PICTURES, labels, transforms="V2"), tmp_path)
    assert outcome.begins is Stage.PREPROCESSING
    assert mistakes(outcome) == ["shorter side"]
    assert "resized to 256 before the crop; the original's to 232" in outcome.findings[0].says


def test_the_precision_is_found_in_the_graph(classifier: tuple[Path, Path], tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    _, file = classifier
    assert precision_of(file) == "fp32"
    quantize_dynamic(file, tmp_path / "int8.onnx")
    assert precision_of(tmp_path / "int8.onnx") == "int8"


def test_int8_that_loses_too_much_is_named(classifier: tuple[Path, Path], tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    def crush(number: int, weights: np.ndarray) -> np.ndarray:
        """Leave one weight so large that the others round to nothing."""
        weights.flat[0] = 1000 * np.abs(weights).max()
        return weights

    checkpoint, file = classifier
    model = onnx.load(file)
    graphs.with_weights(model, crush)
    onnx.save(model, tmp_path / "crushed.onnx")
    quantize_dynamic(tmp_path / "crushed.onnx", tmp_path / "int8.onnx")
    outcome = verify(Request(tmp_path / "int8.onnx", checkpoint, PICTURES), tmp_path)
    assert outcome.precision == "int8" and not outcome.same
    assert mistakes(outcome) == ["lossy"]
    assert "of the answers are the original's" in outcome.findings[0].says


def test_models_of_different_tasks_are_not_compared(
    exported: Exported, classifier: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(
        ExportError, match="is a model for object detection, and the original, a ResNet-18"
    ):
        verify(Request(exported.file, classifier[0], PICTURES), tmp_path)


def test_a_checkpoint_of_another_kind_is_refused_by_name(
    exported: Exported, tmp_path: Path
) -> None:
    torch.save({"stem.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    with pytest.raises(ExportError, match=r"another network, with tensors such as stem\.weight"):
        verify(Request(exported.file, tmp_path / "other.pt", PICTURES), tmp_path)
    with pytest.raises(ExportError, match=r"does not exist; give the \.pt"):
        verify(Request(exported.file, tmp_path / "none.pt", PICTURES), tmp_path)


def test_a_graph_that_takes_pixels_is_refused_with_advice(
    exported: Exported, tmp_path: Path
) -> None:
    def pixels(model: onnx.ModelProto) -> None:
        name = model.graph.input[0].name
        for node in model.graph.node:
            node.input[:] = ["as_float" if one == name else one for one in node.input]
        cast = onnx.helper.make_node("Cast", [name], ["as_float"], to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8

    with pytest.raises(ExportError, match=r"is uint8, so steps of the pre-processing are in the"):
        exported.verified(tmp_path, exported.changed(tmp_path / "pixels.onnx", pixels))
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ExportError, match="not an ONNX model, or truncated"):
        exported.verified(tmp_path, tmp_path / "text.onnx")


def test_a_file_whose_shapes_do_not_fit_is_refused_with_advice(
    exported: Exported, tmp_path: Path
) -> None:
    def flat(model: onnx.ModelProto) -> None:
        without_metadata(model)
        graphs.last(model, "ReduceMax", np.array([1], np.int64), keepdims=0)
        del model.graph.output[0].type.tensor_type.shape.dim[1]

    with pytest.raises(ExportError, match=r"does not fit a YOLOv5nu.*\.json beside it"):
        exported.verified(tmp_path, exported.changed(tmp_path / "flat.onnx", flat))


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolov8n-cls"])
def test_newer_checkpoints_compute_what_ultralytics_computes(name: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
        from ultralytics.nn import tasks

    classifies = name.endswith("-cls")
    kind = tasks.ClassificationModel if classifies else tasks.DetectionModel
    random_weights.seed()
    module = originals.lively(kind(f"{name}.yaml", verbose=False))
    if not classifies:  # the weights of this layer are no weights: the distances 0 to 15
        module.model[-1].dfl.conv.weight.data.view(-1).copy_(torch.arange(16.0))
    torch.save({"model": module, "train_args": {"imgsz": 96}}, tmp_path / "best.pt")
    original = read_original(tmp_path / "best.pt", None, "V1", None)
    tensor = np.random.default_rng(0).random((3, 96, 96), np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(tensor[None]))
    raw = original.network(tensor)
    if classifies:
        _, logits = expected
        assert np.abs(raw - logits[0].numpy()).max() < 1e-3
        assert original.pipeline.geometry.rule == "shorter side"
    else:
        assert np.abs(raw - expected[0][0].numpy()).max() < 1e-2
        assert expected[0][0][4:].max() - expected[0][0][4:].min() > 0.1
    assert original.pipeline.geometry.width == 96


def test_a_file_whose_fields_are_garbage_is_refused(exported: Exported, tmp_path: Path) -> None:
    file = tmp_path / "garbage.onnx"
    garbage = b"\x42\x03\xff\xff\xff"  # ModelProto.opset_import, which is a message
    file.write_bytes(exported.file.read_bytes() + garbage)
    with pytest.raises(ExportError, match=r"garbage\.onnx is no ONNX model, or is damaged"):
        exported.verified(tmp_path, file)
