"""The folder of models: what counts as one, what is verified, what is said of the rest."""

import hashlib
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from visavis_server.card import LabelSet, ModelDocument, ModelInput, ShorterSide, Task
from visavis_server.errors import CannotLoadNow, ModelFileError, ModelNotFound, TaskMismatch
from visavis_server.models.loader import Loader
from visavis_server.models.model_files import ModelFile, scan
from visavis_server.models.onnx_file import metadata_bytes
from visavis_server.models.planning import Planner
from visavis_server.models.repository import Repository
from visavis_server.models.served_model import ServedModel
from visavis_server.models.verified_file import VerifiedFile
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.providers import CPU, Provider, SessionConfig
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.runtime.session import Sessions

from .. import graphs


@pytest.fixture
def loader(tmp_path: Path) -> Loader:
    return Loader(Planner(CPU, 1), Scheduler(1, 1), cache_dir=tmp_path)


def load(loader: Loader, folder: Path, contents: bytes, name: str = "colors") -> ServedModel:
    return loader.load(ModelFile(name, 1, graphs.put(folder, name, 1, contents)))


def exported(**changes: Any) -> bytes:
    return graphs.export(graphs.classifier(), graphs.classifier_document(**changes))[0]


def with_document(document: ModelDocument, graph: bytes | None = None) -> bytes:
    """Return a file that carries a document, right or wrong."""
    return (graph or graphs.classifier()) + metadata_bytes({"visavis": document.model_dump_json()})


def test_models_are_found_by_name_and_by_version_as_a_number(tmp_path: Path) -> None:
    for name, version in (("b", 2), ("b", 10), ("a", 1)):
        graphs.put(tmp_path, name, version, b"")
    assert [(f.name, f.version) for f in scan(tmp_path)] == [("a", 1), ("b", 2), ("b", 10)]


@pytest.mark.parametrize("version", ["0", "01", "v1", "-1", "1.0", "latest", "1 ", "٣", "9" * 10])
def test_folders_that_are_no_version_are_left_alone(tmp_path: Path, version: str) -> None:
    graphs.put(tmp_path, "a", version, b"")
    assert scan(tmp_path) == []


@pytest.mark.parametrize("name", [".hidden", "two words", "-flag", "é", "a\n"])
def test_folders_that_are_no_name_are_left_alone(tmp_path: Path, name: str) -> None:
    graphs.put(tmp_path, name, 1, b"")
    assert scan(tmp_path) == []


def test_other_files_and_empty_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("models")
    (tmp_path / "a" / "1").mkdir(parents=True)
    (tmp_path / "b" / "1").mkdir(parents=True)
    (tmp_path / "b" / "1" / "model.pt").write_bytes(b"")
    assert scan(tmp_path) == []


def test_a_file_is_no_repository(tmp_path: Path) -> None:
    file = graphs.put(tmp_path, "a", 1, b"")
    with pytest.raises(
        ModelFileError, match=f"{file} is a file; set --models to the folder that holds"
    ):
        scan(file)


def test_a_missing_repository_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"is not a folder; .*visavis export"):
        scan(tmp_path / "nowhere")


def test_an_exported_file_is_verified_by_digest_and_golden_sample(
    loader: Loader, tmp_path: Path
) -> None:
    model = load(loader, tmp_path, exported())
    assert (model.name, model.version, model.task) == ("colors", 1, Task.CLASSIFICATION)
    assert model.verification.digest and model.verification.golden_sample


def test_the_folder_names_the_model(loader: Loader, tmp_path: Path) -> None:
    model = load(loader, tmp_path, exported(), name="copy")
    assert model.name == model.document.name == model.served_by.model == "copy"


def test_a_flipped_bit_in_the_weights_is_refused(loader: Loader, tmp_path: Path) -> None:
    contents = bytearray(exported())
    # The weight 10.0 as float32, little-endian.
    contents[contents.index(b"\x00\x00\x20\x41")] ^= 1
    with pytest.raises(ModelFileError, match=r"model\.onnx: its digest is .*changed or damaged"):
        load(loader, tmp_path, bytes(contents))


def test_another_outcome_than_the_golden_one_is_refused(loader: Loader, tmp_path: Path) -> None:
    _, other = graphs.export(graphs.classifier(gain=11), graphs.classifier_document())
    digest = hashlib.sha256(graphs.classifier()).hexdigest()
    contents = with_document(other.model_copy(update={"digest": digest}))
    with pytest.raises(ModelFileError, match=r"model\.onnx: its golden sample differs"):
        load(loader, tmp_path, contents)


def test_a_file_whose_reading_never_ends_is_refused_with_its_trial(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ModelFile("colors", 1, graphs.put(tmp_path, "colors", 1, exported()))
    verdict, may_end = Future[str](), threading.Event()
    monkeypatch.setattr("visavis_server.models.loader.VerifiedFile", lambda path: may_end.wait(30))
    verdict.set_exception(CannotLoadNow("it was not loaded within 8 s"))
    with pytest.raises(CannotLoadNow, match="within 8 s"):
        loader.load(file, verdict)
    (reading,) = (thread for thread in threading.enumerate() if thread.name == "open")
    assert reading.daemon  # the process may end without it
    may_end.set()
    reading.join(10)


def test_an_image_whose_answer_depends_on_its_neighbours_in_the_batch_is_refused(
    loader: Loader, tmp_path: Path
) -> None:
    contents, _ = graphs.export(graphs.mixed_batch(), graphs.classifier_document())
    with pytest.raises(ModelFileError, match=r"model\.onnx: its golden sample differs"):
        load(loader, tmp_path, contents)


@pytest.mark.parametrize("number", [0, 4, 333, 700, 998])
def test_a_weight_of_any_class_counts_even_where_the_digest_was_made_anew(
    loader: Loader, tmp_path: Path, number: int
) -> None:
    labels = LabelSet(name="many", labels=tuple(map(str, range(1000))))
    graph = graphs.classifier_of(1000)
    _, document = graphs.export(graph, graphs.classifier_document(label_set=labels))
    model = onnx.load_from_string(graph)
    weights = np.frombuffer(model.graph.initializer[0].raw_data, np.uint32).reshape(3, 1000).copy()
    weights[1, number] ^= 1 << 24  # of the exponent
    model.graph.initializer[0].raw_data = weights.tobytes()
    damaged = model.SerializeToString()
    digest = hashlib.sha256(damaged).hexdigest()
    contents = with_document(document.model_copy(update={"digest": digest}), damaged)
    with pytest.raises(ModelFileError, match=r"model\.onnx: its golden sample differs"):
        load(loader, tmp_path, contents)


def test_a_file_without_digest_and_golden_sample_is_served_and_says_so(
    loader: Loader, tmp_path: Path
) -> None:
    model = load(loader, tmp_path, with_document(graphs.classifier_document()))
    assert not model.verification.digest and not model.verification.golden_sample


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_plain_classifier_is_served_with_a_json_file_beside_it(
    loader: Loader, tmp_path: Path, encoding: str
) -> None:
    path = graphs.put(tmp_path, "plain", 1, graphs.classifier())
    document = graphs.classifier_document().model_dump_json()
    path.with_name("model.json").write_text(document, encoding)
    model = loader.load(ModelFile("plain", 1, path))
    assert model.name == "plain"
    assert model.document.label_set.labels == graphs.COLORS


def test_a_broken_json_file_is_refused_by_its_own_path(loader: Loader, tmp_path: Path) -> None:
    path = graphs.put(tmp_path, "plain", 1, graphs.classifier())
    path.with_name("model.json").write_text('{"name": "plain"}')
    with pytest.raises(ModelFileError, match=r"model\.json: its document does .*; correct it"):
        loader.load(ModelFile("plain", 1, path))


def test_a_json_file_that_is_no_text_is_refused_by_its_own_path(
    loader: Loader, tmp_path: Path
) -> None:
    path = graphs.put(tmp_path, "plain", 1, graphs.classifier())
    path.with_name("model.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ModelFileError, match=r"model\.json: its document"):
        loader.load(ModelFile("plain", 1, path))


def test_a_plain_classifier_without_a_sidecar_is_refused_with_advice(
    loader: Loader, tmp_path: Path
) -> None:
    with pytest.raises(
        ModelFileError, match=r"names is missing.*put a model\.json beside the file"
    ):
        load(loader, tmp_path, graphs.classifier())


def test_a_graph_without_the_output_of_its_document_is_refused(
    loader: Loader, tmp_path: Path
) -> None:
    output = graphs.classifier_document().output.model_copy(update={"tensor": "scores"})
    with pytest.raises(ModelFileError, match="the graph has no output scores"):
        load(loader, tmp_path, with_document(graphs.classifier_document(output=output)))


@pytest.mark.parametrize("labels", ["a", "abcde"])
def test_a_classifier_with_fewer_or_more_labels_than_outputs_is_refused(
    loader: Loader, tmp_path: Path, labels: str
) -> None:
    document = graphs.classifier_document(label_set=LabelSet(name="x", labels=tuple(labels)))
    why = rf"model\.onnx: the graph has 3 classes, but its document has {len(labels)} labels"
    with pytest.raises(ModelFileError, match=why):
        load(loader, tmp_path, with_document(document))


@pytest.mark.parametrize(
    ("layout", "shape"), [("yolov5_rows", (1, 84, 7)), ("ultralytics_rows", (1, 6, 84))]
)
@pytest.mark.parametrize("labels", ["a", "abc"])
def test_a_detector_with_fewer_or_more_labels_than_outputs_is_refused(
    loader: Loader, tmp_path: Path, layout: str, shape: tuple[int, ...], labels: str
) -> None:
    document = graphs.detector_document(
        label_set=LabelSet(name="x", labels=tuple(labels)), output=graphs.candidates(layout)
    )
    why = rf"model\.onnx: the graph has 2 classes, but its document has {len(labels)} labels"
    with pytest.raises(ModelFileError, match=why):
        load(loader, tmp_path, with_document(document, graphs.constant(np.zeros(shape))))


def test_a_graph_of_another_input_size_than_its_document_is_refused(
    loader: Loader, tmp_path: Path
) -> None:
    larger = ModelInput(tensor="images", width=9, height=9, resize=ShorterSide(size=9))
    why = r"model\.onnx: the graph's input is .* 8, 8\], but its document says \[1, 3, 9, 9\]"
    with pytest.raises(ModelFileError, match=why):
        load(loader, tmp_path, with_document(graphs.classifier_document(input=larger)))


def test_a_graph_for_two_images_at_once_is_refused(loader: Loader, tmp_path: Path) -> None:
    graph = graphs.constant(np.concatenate([graphs.ROWS, graphs.ROWS]))
    with pytest.raises(
        ModelFileError, match=r"model\.onnx: the graph returns 2 outputs for one image"
    ):
        load(loader, tmp_path, with_document(graphs.detector_document(), graph))


@pytest.mark.parametrize(("tensor", "index"), [("nope", 0), ("logits", 99)])
def test_a_golden_sample_of_an_unknown_output_is_refused(
    loader: Loader, tmp_path: Path, tensor: str, index: int
) -> None:
    sampled = {"tensor": tensor, "indices": [index], "values": [1.0]}
    document = graphs.classifier_document(
        golden_sample={"outputs": [sampled], "relative_tolerance": 1.0}
    )
    with pytest.raises(ModelFileError, match=r"model\.onnx: can't be served"):
        load(loader, tmp_path, with_document(document))


def test_other_weights_never_find_the_engines_of_these(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT finds an engine by the graph's nodes, and these are the same."""
    folders: set[Path] = set()
    sessions = Sessions

    def noted(
        file: VerifiedFile, provider: Provider, plan: Plan, config: SessionConfig
    ) -> Sessions:
        folders.add(config.cache_dir)
        return sessions(file, provider, plan, config)

    monkeypatch.setattr("visavis_server.models.loader.Sessions", noted)
    for gain in (10, 20):
        contents = graphs.export(graphs.classifier(gain), graphs.classifier_document())[0]
        load(loader, tmp_path / str(gain), contents)
    assert len(folders) == 2


@pytest.fixture(scope="module")
def repository(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    loader = Loader(Planner(CPU, 1), Scheduler(1, 1), cache_dir=tmp_path_factory.getbasetemp())
    return Repository(loader.load(file) for file in scan(models))


def test_a_repository_knows_names_and_versions(repository: Repository) -> None:
    assert repository.names() == ["boxes", "colors", "fragile", "guess", "pets"]
    assert repository.versions("colors") == [1, 2]
    assert [(m.name, m.version) for m in repository.latest()][:2] == [("boxes", 1), ("colors", 2)]


def test_the_highest_version_is_served_unless_another_is_named(repository: Repository) -> None:
    assert repository.get("colors").version == 2
    assert repository.get("colors", 1).version == 1


def test_an_unknown_model_is_refused_with_those_that_exist(repository: Repository) -> None:
    with pytest.raises(
        ModelNotFound, match="'yolo'; the models are: boxes, colors, fragile"
    ) as refused:
        repository.get("yolo", field="models")
    assert refused.value.field == "models"


def test_an_unknown_version_is_refused_with_those_that_exist(repository: Repository) -> None:
    with pytest.raises(
        ModelNotFound, match="colors has no version 3; its versions are: 1, 2"
    ) as refused:
        repository.get("colors", 3)
    assert refused.value.field == "version"


def test_a_model_that_cannot_do_the_task_is_refused_with_those_that_can(
    repository: Repository,
) -> None:
    with pytest.raises(
        TaskMismatch, match="the models for object detection are: boxes, pets"
    ) as refused:
        repository.capable("colors", None, Task.OBJECT_DETECTION)
    assert refused.value.field == "model"
    assert repository.capable("boxes", None, Task.OBJECT_DETECTION).name == "boxes"
