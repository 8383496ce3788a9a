"""`tritonclient.http`: what the client over gRPC gets, over HTTP."""

import os
from collections.abc import Iterator

import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.http import InferenceServerException
from tritonclient.utils import np_to_triton_dtype

from .tensors import BOXES, Tensor, logits, noise, picture


@pytest.fixture
def client() -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(os.environ["HTTP_ADDRESS"], concurrency=8) as client:
        yield client


def given(tensor: Tensor, name: str = "images", binary: bool = True) -> list[triton.InferInput]:
    tensor_input = triton.InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))
    return [tensor_input.set_data_from_numpy(tensor, binary_data=binary)]


def test_server_and_models_are_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("colors")
    assert client.is_model_ready("colors", "1")
    assert not client.is_model_ready("colors", "3")
    assert not client.is_model_ready("nobody")


def test_metadata_configuration_index_and_statistics(client: triton.InferenceServerClient) -> None:
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    colors = client.get_model_metadata("colors")
    assert colors["versions"] == ["1", "2"]
    assert colors["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 8, 8]}]
    config = client.get_model_config("colors", "2")
    assert config["max_batch_size"] == 16
    assert config["input"][0]["dims"] == [3, 8, 8]
    served = {(m["name"], m["version"]): m["state"] for m in client.get_model_repository_index()}
    assert served["colors", "2"] == served["boxes_image", "1"] == "READY"
    before = client.get_inference_statistics("colors", "2")["model_stats"][0]["inference_count"]
    client.infer("colors", given(noise(3)))
    after = client.get_inference_statistics("colors", "2")["model_stats"][0]["inference_count"]
    assert after - before == 3
    assert len(client.get_inference_statistics()["model_stats"]) >= 3


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [None, True, False])
@pytest.mark.parametrize("batch", [1, 16])
def test_answer_is_the_models(
    client: triton.InferenceServerClient,
    binary_input: bool,
    binary_output: bool | None,
    batch: int,
) -> None:
    inputs = noise(batch)
    wanted = None
    if binary_output is not None:
        wanted = [triton.InferRequestedOutput("logits", binary_data=binary_output)]
    result = client.infer(
        "colors",
        given(inputs, binary=binary_input),
        outputs=wanted,
        model_version="1",
        request_id="seven",
        priority=1,
        parameters={"unknown": "yes", "also": 1.5},
    )
    np.testing.assert_allclose(result.as_numpy("logits"), logits(inputs, 10), rtol=1e-5)
    response = result.get_response()
    assert (response["model_name"], response["model_version"]) == ("colors", "1")
    assert response["id"] == "seven"


def test_a_detector_s_view_of_tensors(client: triton.InferenceServerClient) -> None:
    inputs = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    for binary in (True, False):
        output = client.infer("boxes", given(inputs, binary=binary)).as_numpy("output0")
        np.testing.assert_allclose(output, np.stack([BOXES, BOXES]), rtol=1e-5, atol=1e-6)


def test_pictures_get_labels_and_boxes(client: triton.InferenceServerClient) -> None:
    files = np.array([[picture("red")], [picture("blue")]], np.object_)
    result = client.infer("colors_image", given(files, "IMAGE"), parameters={"top_k": 1})
    assert result.as_numpy("labels").tolist() == [[b"red"], [b"blue"]]
    result = client.infer("boxes_image", given(files, "IMAGE"))
    assert result.as_numpy("labels")[0].tolist() == [b"cat", b"dog"]
    assert result.as_numpy("boxes").shape == (2, 2, 4)
    assert result.as_numpy("counts").tolist() == [[2], [2]]


def test_the_best_labels(client: triton.InferenceServerClient) -> None:
    for binary in (True, False):
        wanted = [triton.InferRequestedOutput("logits", binary_data=binary, class_count=2)]
        best = client.infer("colors", given(noise()), outputs=wanted).as_numpy("logits")
        assert best.shape == (1, 2)


def test_many_requests_at_once_are_not_mixed_up(client: triton.InferenceServerClient) -> None:
    asked = {seed: client.async_infer("colors", given(noise(seed=seed))) for seed in range(30)}
    for seed, answer in asked.items():
        expected = logits(noise(seed=seed))
        np.testing.assert_allclose(answer.get_result().as_numpy("logits"), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("ask", "status", "why"),
    [
        (lambda c: c.infer("nobody", given(noise())), "404", "nobody"),
        (lambda c: c.infer("colors", given(noise()[:, :2])), "400", "takes"),
        (lambda c: c.get_model_metadata("nobody"), "404", "nobody"),
        (lambda c: c.load_model("colors"), "403", "admin"),
        (lambda c: c.unload_model("colors"), "403", "admin"),
        (lambda c: c.get_trace_settings(), "501", "trace settings are not supported"),
        (lambda c: c.update_trace_settings("colors", {}), "501", "trace settings"),
        (lambda c: c.get_log_settings(), "501", "log settings are not supported"),
        (lambda c: c.get_system_shared_memory_status(), "501", "shared memory"),
        (lambda c: c.unregister_cuda_shared_memory("a"), "501", "shared memory"),
        (
            lambda c: c.infer("colors", given(noise()), request_compression_algorithm="gzip"),
            "501",
            "compressed",
        ),
    ],
)
def test_errors_say_what_to_do(
    client: triton.InferenceServerClient, ask: object, status: str, why: str
) -> None:
    with pytest.raises(InferenceServerException) as refused:
        ask(client)  # type: ignore[operator]
    assert refused.value.status() == status
    assert why in refused.value.message()
