"""The models of a repository: files that are verified, loaded, and served."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from visavis_server.card import METADATA_KEY, ModelDocument, Task, parse_document
from visavis_server.errors import (
    CannotLoadNow,
    ModelFileError,
    ModelNotFound,
    Overloaded,
    StartupError,
    TaskMismatch,
    VisavisError,
    listed,
)
from visavis_server.models.model_files import ModelFile
from visavis_server.models.planning import Planner, one_at_a_time
from visavis_server.models.served_model import Origin, ServedModel
from visavis_server.models.ultralytics_file import document_of
from visavis_server.models.verified_file import VerifiedFile
from visavis_server.runtime import memory
from visavis_server.runtime.buffers import Buffers
from visavis_server.runtime.providers import Provider, SessionConfig
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.runtime.session import Session, Sessions

_WHERE_WHY = "the server's log and RepositoryIndex say why"


@dataclass(frozen=True, slots=True)
class Loader:
    """Turns model files into served models; cache_dir: where providers may keep engines."""

    planner: Planner
    scheduler: Scheduler
    cache_dir: Path

    def load(self, file: ModelFile, tried: Future[str] | None = None) -> ServedModel:
        """Return the model, verified against its digest and its golden sample, warmed up.

        tried: will hold the identity of what passed a trial, and nothing else is loaded then; the
        file is copied and hashed meanwhile. Raises StartupError, naming the file, if anything of
        that fails.
        """
        with _named(file):
            opened = _opened(file, tried) if tried else VerifiedFile(file.path)
            try:
                return self._load(file, opened)
            finally:
                opened.release()
                memory.give_back()

    def _load(self, file: ModelFile, opened: VerifiedFile) -> ServedModel:
        contents = opened.contents
        document = read_document(file.name, opened, self.planner.provider, self.cache_dir)
        if document.digest not in (None, contents.digest):
            raise ModelFileError(
                f"{file.path}: its digest is {contents.digest[:12]}…, its document says "
                f"{str(document.digest)[:12]}…; the file was changed or damaged: export it again"
            )
        plan = self.planner.plan(document)
        # An engine holds weights: one that was built from other bytes must not be taken for it.
        config = SessionConfig(self.cache_dir / contents.digest, bf16=self.planner.bf16)
        sessions = Sessions(opened, self.planner.provider, plan, config)
        if sessions.first.input_shape[0] is not None:
            plan = one_at_a_time(plan)
        model = ServedModel(
            file.version,
            document,
            sessions,
            plan,
            self.scheduler,
            Buffers(0 if self.planner.low_memory else plan.instances),
            Origin(opened.identity, opened.stamp),
            bf16=self.planner.bf16,
        )
        model.warm_up(str(file.path))
        return model


def _opened(file: ModelFile, tried: Future[str]) -> VerifiedFile:
    """Return a file that passed its trial, which was copied and hashed meanwhile.

    Reading may never end, on a mount that is gone. Then the trial, which reads the file too, is
    refused in time, and the thread that reads is left to itself.
    """
    opening: Future[VerifiedFile] = Future()

    def open_() -> None:
        try:
            opening.set_result(VerifiedFile(file.path))
        except BaseException as error:  # noqa: BLE001  raised where the result is asked for
            opening.set_exception(error)

    threading.Thread(target=open_, name="open", daemon=True).start()
    identity = tried.result()
    opened = opening.result()
    if opened.identity != identity:
        raise ModelFileError(f"{file.path}: it changed while it was loaded")
    return opened


def read_document(
    name: str, file: VerifiedFile, provider: Provider, cache_dir: Path
) -> ModelDocument:
    """Return what a file says of its model, or the JSON beside it, or ultralytics' metadata.

    name: what the folder calls the model. Raises ModelFileError.
    """
    metadata = file.contents.metadata
    if METADATA_KEY in metadata:
        document = parse_document(metadata[METADATA_KEY], str(file.path))
    elif file.sidecar is not None:
        document = parse_document(file.sidecar, str(file.path.with_suffix(".json")))
    else:
        with file.copy() as copy:
            probe = Session(copy, provider, SessionConfig(cache_dir))
        document = document_of(name, metadata, probe, str(file.path))
    # The folder names the model: so that a copy under another name is another model.
    return document.model_copy(update={"name": name})


@contextmanager
def _named(file: ModelFile) -> Iterator[None]:
    """Turn whatever a strange file brings about into a StartupError that names it."""
    try:
        yield
    except StartupError:
        raise
    except (Overloaded, MemoryError) as error:
        why = str(error) or "no memory left"
        raise CannotLoadNow(f"{file.path}: can't be served: {why}") from error
    except VisavisError as error:
        raise ModelFileError(f"{file.path}: can't be served: {error}") from error
    except Exception as error:
        raise ModelFileError(f"{file.path}: can't be served: {error!r}") from error


class Repository:
    """The models that are served: an immutable picture of all versions.

    not_served: files of the folder that are refused or unloaded, and why; where an earlier file
    of the same version is still served, why the new one is not.
    """

    def __init__(
        self, models: Iterable[ServedModel], not_served: Mapping[ModelFile, str] | None = None
    ) -> None:
        self.not_served = {(f.name, f.version): why for f, why in (not_served or {}).items()}
        self._known_names = {name for name, _ in self.not_served}
        self._models: dict[str, dict[int, ServedModel]] = {}
        for model in sorted(models, key=lambda m: (m.name, m.version)):
            self._models.setdefault(model.name, {})[model.version] = model
        self._known_names |= self._models.keys()

    def knows(self, name: str) -> bool:
        """Say whether the folder holds a model of this name, served or not."""
        return name in self._known_names

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
        if versions is None and name in self._known_names:
            raise ModelNotFound(f"model {name} is not served now: {_WHERE_WHY}", field)
        if versions is None:
            raise ModelNotFound(
                f"there is no model {name[:128]!r}; there are {listed(self._models)}",
                field,
            )
        if version is None:
            return versions[max(versions)]
        if version not in versions and (name, version) in self.not_served:
            raise ModelNotFound(
                f"version {version} of model {name} is not served now: {_WHERE_WHY}", "version"
            )
        if version not in versions:
            raise ModelNotFound(
                f"model {name} has no version {version}; it has {', '.join(map(str, versions))}",
                "version",
            )
        return versions[version]

    def capable(self, name: str, version: int | None, task: Task) -> ServedModel:
        """Return a model that is capable of a task; raises ModelNotFound or TaskMismatch."""
        model = self.get(name, version)
        if model.task is not task:
            others = listed(m.name for m in self.latest() if m.task is task)
            raise TaskMismatch(
                "model",
                f"model {name} is capable of {model.task}, not of {task}; capable are: {others}",
            )
        return model
