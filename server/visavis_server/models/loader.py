"""Turns model files into served models: opens, verifies, loads and warms them up."""

import codecs
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from visavis_server.card import (
    METADATA_KEY,
    ModelDocument,
    explanation_constants,
    parse_document,
)
from visavis_server.errors import (
    CannotLoadNow,
    ModelFileError,
    Overloaded,
    StartupError,
    VisavisError,
)
from visavis_server.models.engine import Engine
from visavis_server.models.model_files import ModelFile
from visavis_server.models.planning import Planner, one_at_a_time
from visavis_server.models.served_model import Origin, ServedModel
from visavis_server.models.ultralytics_file import document_of
from visavis_server.models.verified_file import VerifiedFile
from visavis_server.models.warm_up import warm_up
from visavis_server.runtime import memory
from visavis_server.runtime.buffers import Buffers
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.runtime.session import Session, Sessions


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads model files.

    cache_dir: the folder where providers may keep engines. ended: called after each load, whether
    it succeeded or not. shared_dir: the folder in which workers share weights.
    """

    planner: Planner
    scheduler: Scheduler
    cache_dir: Path
    ended: Callable[[ModelFile], None] = lambda file: None
    shared_dir: Path | None = None

    def load(self, file: ModelFile, tried: Future[str] | None = None) -> ServedModel:
        """Return the model, verified against its digest and golden sample, and warmed up.

        tried: will hold the identity of the file that passed its trial; the file is copied and
        hashed meanwhile, and must have that identity. Raises StartupError, naming the file, if any
        step fails.
        """
        try:
            with _named(file):
                opened = _opened(file, tried) if tried else VerifiedFile(file.path)
                try:
                    return self._load(file, opened)
                finally:
                    opened.release()
                    memory.give_back()
        finally:
            self.ended(file)

    def _load(self, file: ModelFile, opened: VerifiedFile) -> ServedModel:
        planner, contents = self.planner, opened.contents
        document = read_document(file.name, opened)
        if document.digest not in (None, contents.digest):
            raise ModelFileError(
                f"{file.path}: its digest is {contents.digest[:12]}…, but its document says "
                f"{str(document.digest)[:12]}…; the file was changed or damaged: export it again"
            )
        plan = planner.plan(document)
        # A folder per digest: TensorRT would reuse an engine that holds other weights.
        config = SessionConfig(
            self.cache_dir / contents.digest,
            batch=plan.batch,
            bf16=planner.bf16,
            varying=document.input.varies,
            gpu=planner.gpu,
            gpu_bytes=planner.gpu_bytes,
            cuda_graphs=planner.cuda_graphs and not document.input.varies,
            shared=self.shared_dir and self.shared_dir / opened.identity,
        )
        sessions = Sessions(opened, planner.provider, plan, config)
        if sessions.first.input_shape[0] is not None or document.input.varies:
            plan = one_at_a_time(plan)
        constants = opened.constants(explanation_constants(document))
        where = str(file.path)
        warm_up(document, sessions, plan.batch, where, constants, bf16=planner.bf16)
        buffers = Buffers(0 if planner.low_memory else plan.instances)
        return ServedModel(
            file.version,
            document,
            Engine(document, sessions, plan, buffers, constants),
            self.scheduler,
            Origin(opened.identity, opened.stamp),
            bf16=planner.bf16,
        )


def _opened(file: ModelFile, tried: Future[str]) -> VerifiedFile:
    """Return the file once its trial has passed; it is copied and hashed meanwhile.

    A read may hang forever on a dead mount. The trial reads the file too, so it fails in time; the
    reading thread is then abandoned.
    """
    opening: Future[VerifiedFile] = Future()

    def open_() -> None:
        try:
            opening.set_result(VerifiedFile(file.path))
        except BaseException as error:  # noqa: BLE001  raised where the result is read
            opening.set_exception(error)

    threading.Thread(target=open_, name="open", daemon=True).start()
    identity = tried.result()
    opened = opening.result()
    if opened.identity != identity:
        raise ModelFileError(f"{file.path}: the file changed while it was being loaded")
    return opened


def read_document(name: str, file: VerifiedFile) -> ModelDocument:
    """Return the document in a file, in the JSON beside it, or from ultralytics' metadata.

    name: the name of the model's folder. Raises ModelFileError.
    """
    metadata = file.contents.metadata
    if METADATA_KEY in metadata:
        document = parse_document(metadata[METADATA_KEY], str(file.path))
    elif file.sidecar is not None:
        # Notepad saves UTF-8 with a byte order mark.
        sidecar = file.sidecar.removeprefix(codecs.BOM_UTF8)
        where = str(file.path.with_suffix(".json"))
        document = parse_document(sidecar, where, "correct it as docs/models.md describes")
    else:
        with file.copy() as copy:
            probe = Session(copy, CPU, SessionConfig(Path()))
        document = document_of(name, metadata, probe, str(file.path))
    # The folder names the model, so a copy of the folder under another name is another model.
    return document.model_copy(update={"name": name})


@contextmanager
def _named(file: ModelFile) -> Iterator[None]:
    """Turn any error that a file causes into a StartupError that names the file."""
    try:
        yield
    except StartupError:
        raise
    except (Overloaded, MemoryError) as error:
        why = str(error) or "out of memory"
        raise CannotLoadNow(f"{file.path}: can't be served: {why}") from error
    except VisavisError as error:
        raise ModelFileError(f"{file.path}: can't be served: {error}") from error
    except Exception as error:
        raise ModelFileError(f"{file.path}: can't be served: {error!r}") from error
