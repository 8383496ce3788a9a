"""Loads the models of the repository when the server starts."""

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import structlog

from visavis_server.errors import StartupError
from visavis_server.models.loader import Loader
from visavis_server.models.model_files import Look, ModelFile, look_at, within_a_model
from visavis_server.models.served_model import ServedModel
from visavis_server.models.trial import Verdicts
from visavis_server.models.watcher import Refusal

_log = structlog.get_logger()

Loaded = list[tuple[ModelFile, ServedModel]]


def first_look(root: Path) -> Look:
    """Return the contents of the repository; raises StartupError if it holds no model files."""
    look = look_at(root)
    passed_over = look.not_served()
    for why in passed_over:
        _log.warning("passed over", why=why)
    if not look.files and within_a_model(root):
        raise StartupError(
            f"{root} is the folder of one model, or of one version; set --models to the model "
            "repository above it"
        )
    if not look.files:
        first = f" ({passed_over[0]})" if passed_over else ""
        raise StartupError(
            f"the model repository {root} holds no <name>/<version>/model.onnx{first}; "
            f"export one with `visavis export resnet50 yolov5n --out {root}`"
        )
    return look


class Startup:
    """Loads the files of the first look, one after another, in a thread.

    trial: tries each file first; None: files are loaded without a trial. require_all: fail if any
    file can't be served.
    """

    def __init__(self, look: Look, trial: Verdicts | None, *, require_all: bool) -> None:
        self._look = look
        self._trial = trial
        self._require_all = require_all
        self._thread = ThreadPoolExecutor(1, "load")
        self._loading: Future[ServedModel] | None = None

    @property
    def loading(self) -> bool:
        """True while a model loads, which can't be interrupted."""
        return self._loading is not None and self._loading.running()

    def stop(self) -> None:
        """Stop the trial and load no further files; a load that is running is abandoned."""
        if self._trial:
            self._trial.stop()
        self._thread.shutdown(wait=False)

    async def load_all(self, loader: Loader) -> tuple[Loaded, dict[ModelFile, Refusal]]:
        """Return the models, and the files that can't be served.

        Raises StartupError if no file can be served, or, with require_all, if any can't.
        """
        models: Loaded = []
        refused: dict[ModelFile, Refusal] = {}
        for file, stamp in self._look.files.items():
            try:
                models.append((file, await self._load(loader, file)))
            except StartupError as error:
                if self._require_all:
                    raise
                refused[file] = Refusal.of(stamp, error)
                _log.error("refused", model=str(file), why=str(error))
        if not models:
            raise StartupError(
                f"none of the models in {self._look.root} can be served; "
                f"the first error: {next(iter(refused.values())).why}"
            )
        return models, refused

    async def _load(self, loader: Loader, file: ModelFile) -> ServedModel:
        """Load a model once its trial has passed; raises StartupError."""
        started = time.monotonic()
        tried = self._trial.verdict(file) if self._trial else None
        self._loading = self._thread.submit(loader.load, file, tried)
        try:
            model = await asyncio.wrap_future(self._loading)
        finally:
            if self._loading.done():  # it holds the model, which a reload must be able to free
                self._loading = None
        _log.info(
            "loaded",
            model=str(file),
            task=str(model.task),
            precision=model.document.precision,
            provider=model.served_by.execution_provider,
            plan=str(model.plan),
            why=model.plan.why,
            seconds=round(time.monotonic() - started, 2),
        )
        if not (model.verification.digest and model.verification.golden_sample):
            why = "the file has no digest or no golden sample"
            _log.warning("not verified", model=file.name, why=why)
        if model.served_by.random_weights:
            _log.warning("RANDOM WEIGHTS", model=file.name, meaning="its answers are meaningless")
        return model
