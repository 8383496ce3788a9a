"""The folder of models: `<name>/<version>/model.onnx`, scanned, verified and loaded."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from server import memory
from server.buffers import Buffers
from server.card import METADATA_KEY, NAME_PATTERN, ModelDocument, Task, parse_document
from server.errors import (
    ModelFileError,
    ModelIncapable,
    ModelNotFound,
    StartupError,
    VisavisError,
    listed,
)
from server.onnx_file import OnnxFile, read_onnx_file
from server.planning import Planner, one_at_a_time
from server.providers import Provider, Setup
from server.scheduler import Scheduler
from server.served_model import ServedModel
from server.session import Session, Sessions
from server.ultralytics_file import document_of


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One version of one model, on disk."""

    name: str
    version: int
    path: Path

    def __str__(self) -> str:
        """Say it as people do."""
        return f"{self.name}/{self.version}"


def scan(folder: Path) -> list[ModelFile]:
    """Return the model files of a repository, by name and version.

    Versions are plain positive integers; other folders are left alone. Raises
    ModelFileError if the folder isn't there.
    """
    if not folder.is_dir():
        raise ModelFileError(
            f"the model repository {folder} is not a folder; export a model with "
            f"`visavis export resnet50 --out {folder}`, or name another with --models"
        )
    return sorted(
        (
            ModelFile(path.parent.parent.name, int(path.parent.name), path)
            for path in folder.glob("*/*/model.onnx")
            if re.fullmatch(r"[1-9][0-9]{0,8}", path.parent.name)
            and re.fullmatch(NAME_PATTERN, path.parent.parent.name)
        ),
        key=lambda file: (file.name, file.version),
    )


@dataclass(frozen=True, slots=True)
class Loader:
    """Turns model files into served models; cache_dir: where providers may keep engines."""

    planner: Planner
    scheduler: Scheduler
    cache_dir: Path

    def load(self, file: ModelFile) -> ServedModel:
        """Return the model, verified against its digest and its golden sample, warmed up.

        Raises StartupError, naming the file, if anything of that fails.
        """
        with _named(file):
            return self._load(file)

    def _load(self, file: ModelFile) -> ServedModel:
        contents = read_onnx_file(file.path)
        document = read_document(file, contents, self.planner.provider, self.cache_dir)
        if document.digest not in (None, contents.digest):
            raise ModelFileError(
                f"{file.path}: its digest is {contents.digest[:12]}…, its document says "
                f"{str(document.digest)[:12]}…; the file was changed or damaged: export it again"
            )
        plan = self.planner.plan(document)
        setup = Setup(self.cache_dir, bf16=self.planner.bf16)
        sessions = Sessions(file.path, self.planner.provider, plan, setup)
        if sessions.first.input_shape[0] is not None:
            plan = one_at_a_time(plan)
        model = ServedModel(
            file.version,
            document,
            sessions,
            plan,
            self.scheduler,
            Buffers(0 if self.planner.low_memory else plan.instances),
            digest_verified=document.digest is not None,
            bf16=self.planner.bf16,
        )
        model.warm_up(str(file.path))
        memory.give_back()
        return model


def read_document(
    file: ModelFile, contents: OnnxFile, provider: Provider, cache_dir: Path
) -> ModelDocument:
    """Return what a file says of its model, or the JSON beside it, or ultralytics' metadata.

    Raises ModelFileError.
    """
    where, sidecar = str(file.path), file.path.with_suffix(".json")
    if METADATA_KEY in contents.metadata:
        document = parse_document(contents.metadata[METADATA_KEY], where)
    elif sidecar.is_file():
        document = parse_document(sidecar.read_bytes(), str(sidecar))
    else:
        probe = Session(file.path, provider, Setup(cache_dir))
        document = document_of(file.name, contents.metadata, probe, where)
    # The folder names the model: so that a copy under another name is another model.
    return document.model_copy(update={"name": file.name})


@contextmanager
def _named(file: ModelFile) -> Iterator[None]:
    """Turn whatever a strange file brings about into a StartupError that names it."""
    try:
        yield
    except StartupError:
        raise
    except VisavisError as error:
        raise ModelFileError(f"{file.path}: can't be served: {error}") from error
    except Exception as error:
        raise ModelFileError(f"{file.path}: can't be served: {error!r}") from error


class Repository:
    """The models that are served: an immutable picture of all versions."""

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._models: dict[str, dict[int, ServedModel]] = {}
        for model in sorted(models, key=lambda m: (m.name, m.version)):
            self._models.setdefault(model.name, {})[model.version] = model

    def names(self) -> list[str]:
        """Return the names of all models, sorted."""
        return list(self._models)

    def versions(self, name: str) -> list[int]:
        """Return a model's versions, ascending."""
        return list(self._models[name])

    def all(self) -> list[ServedModel]:
        """Return every version of every model."""
        return [model for versions in self._models.values() for model in versions.values()]

    def latest(self) -> list[ServedModel]:
        """Return every model at its highest version, by name."""
        return [versions[max(versions)] for versions in self._models.values()]

    def get(self, name: str, version: int | None = None, field: str = "model") -> ServedModel:
        """Return a model; version None: the highest.

        Raises ModelNotFound on `field`, with the names or versions that exist.
        """
        versions = self._models.get(name)
        if versions is None:
            raise ModelNotFound(
                f"there is no model {name[:128]!r}; there are {listed(self._models)}",
                field,
            )
        if version is None:
            return versions[max(versions)]
        if version not in versions:
            raise ModelNotFound(
                f"model {name} has no version {version}; it has {', '.join(map(str, versions))}",
                "version",
            )
        return versions[version]

    def capable(self, name: str, version: int | None, task: Task) -> ServedModel:
        """Return a model that is capable of a task; raises ModelNotFound or ModelIncapable."""
        model = self.get(name, version)
        if model.task is not task:
            others = listed(m.name for m in self.latest() if m.task is task)
            raise ModelIncapable(
                "model",
                f"model {name} is capable of {model.task}, not of {task}; capable are: {others}",
            )
        return model
