"""One ONNX Runtime session: a model file, ready to run on one execution provider."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
import structlog

from server.errors import ModelFailed, ModelFileError, ProviderUnavailable
from server.providers import Provider, chain
from server.results import Tensor

_log = structlog.get_logger()


class Session:
    """Runs one model file.

    input_shape: the input's dimensions; None where any size will do. provider: the
    execution provider that truly runs it, by ONNX Runtime's name.
    """

    def __init__(self, path: Path, provider: Provider, threads: int, cache_dir: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A thread that spins while it waits takes the core from another session.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            providers = chain(provider, cache_dir)
            self._session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            raise ModelFileError(f"{path}: ONNX Runtime can't load it: {error}") from error
        self.provider: str = self._session.get_providers()[0]
        if self.provider != provider.name:
            # ONNX Runtime falls back to the CPU and only prints that it did.
            raise ProviderUnavailable(
                f"{path}: asked for {provider.name}, ONNX Runtime runs it on {self.provider}"
            )
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise ModelFileError(f"{path}: has {len(inputs)} inputs; a model takes one image")
        (model_input,) = inputs
        self.input_name: str = model_input.name
        self.input_shape = [d if isinstance(d, int) else None for d in model_input.shape]
        self.input_dtype: Literal["float16", "float32"]
        self.input_dtype = "float16" if "float16" in model_input.type else "float32"
        self.output_names: list[str] = [output.name for output in self._session.get_outputs()]

    def run(self, tensor: Tensor, output_names: list[str] | None = None) -> list[Tensor]:
        """Return the outputs, by default all; tensor: the input [batch, 3, height, width].

        Raises ModelFailed if the graph breaks, or gives a number that is none.
        """
        feed = {self.input_name: tensor.astype(self.input_dtype, copy=False)}
        try:
            outputs: list[Tensor] = self._session.run(output_names, feed)
        except Exception as error:
            _log.exception("session failed")
            raise ModelFailed(
                "the model failed on this image; the server's log says why"
            ) from error
        # One NaN or infinity makes the sum one; float16 would overflow by itself.
        if not all(np.isfinite(output.sum(dtype=np.float32)) for output in outputs):
            raise ModelFailed("the model gave numbers that are not finite for this image")
        return outputs
