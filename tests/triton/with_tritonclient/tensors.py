"""Inputs as Triton's clients send them, and what the models make of them."""

import io
from typing import Any

import numpy as np
from PIL import Image
from tritonclient import grpc as triton
from tritonclient.utils import np_to_triton_dtype

Tensor = np.ndarray[Any, Any]

# Columns (cx, cy, w, h, cat, dog) of `boxes`: two cats that overlap by an IoU of 0.6, and a dog.
BOXES = np.array(
    [
        [20, 25, 50],
        [20, 20, 50],
        [20, 20, 10],
        [20, 20, 20],
        [0.9, 0.8, 0.05],
        [0.1, 0.1, 0.4],
    ],
    np.float32,
)


def noise(batch: int = 1, seed: int = 0) -> Tensor:
    """Return inputs for `colors`: float32 [batch, 3, 8, 8] in [0, 1)."""
    return np.random.default_rng(seed).random((batch, 3, 8, 8), np.float32)


def logits(inputs: Tensor, gain: float = 20.0) -> Tensor:
    """Return what `colors` makes of inputs: [batch, 3]."""
    return gain * inputs.mean(axis=(2, 3))


def given(tensor: Tensor, name: str = "images") -> list[triton.InferInput]:
    """Return a tensor as the only input of a request."""
    tensor_input = triton.InferInput(name, tensor.shape, np_to_triton_dtype(tensor.dtype))
    return [tensor_input.set_data_from_numpy(tensor)]


def picture(color: str, width: int = 64, height: int = 64) -> bytes:
    """Return a PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), color).save(file, "PNG")
    return file.getvalue()


def pictures(*files: bytes) -> list[triton.InferInput]:
    """Return encoded pictures as the input of an image view: BYTES [batch, 1]."""
    return given(np.array([[file] for file in files], np.object_), "IMAGE")
