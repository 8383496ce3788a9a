"""KServe's `InferenceRESTClient`, which speaks the Open Inference Protocol over HTTP."""

import base64
import io
import os
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
import pytest_asyncio
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import InferResponse, RequestedOutput
from PIL import Image

URL = f"http://{os.environ['HTTP_ADDRESS']}"
NOISE = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)


@pytest_asyncio.fixture
async def client() -> AsyncIterator[InferenceRESTClient]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    yield client
    await client.close()


def picture(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(file, "PNG")
    return file.getvalue()


async def infer(client: InferenceRESTClient, model: str, *inputs: InferInput) -> InferResponse:
    request = InferRequest(model_name=model, infer_inputs=list(inputs), request_id="seven")
    return await client.infer(URL, request, model_name=model)


async def test_server_and_models_are_ready(client: InferenceRESTClient) -> None:
    assert await client.is_server_live(URL)
    assert await client.is_server_ready(URL)
    assert await client.is_model_ready(URL, "colors")
    assert not await client.is_model_ready(URL, "nobody")


@pytest.mark.parametrize("binary", [True, False])
async def test_answer_is_the_models(client: InferenceRESTClient, binary: bool) -> None:
    images = InferInput("images", list(NOISE.shape), "FP32")
    images.set_data_from_numpy(NOISE, binary_data=binary)
    response = await infer(client, "colors", images)
    assert (response.model_name, response.id) == ("colors", "seven")
    expected = 20 * NOISE.mean(axis=(2, 3))
    np.testing.assert_allclose(response.outputs[0].as_numpy(), expected, rtol=1e-5)


async def test_outputs_are_wanted_in_binary(client: InferenceRESTClient) -> None:
    images = InferInput("images", list(NOISE.shape), "FP32")
    images.set_data_from_numpy(NOISE)
    request = InferRequest(
        model_name="colors",
        infer_inputs=[images],
        request_outputs=[RequestedOutput("logits", {"binary_data": True})],
    )
    headers: dict[str, str] = {}
    response = await client.infer(URL, request, model_name="colors", response_headers=headers)
    assert "inference-header-content-length" in headers
    expected = 20 * NOISE.mean(axis=(2, 3))
    np.testing.assert_allclose(response.outputs[0].as_numpy(), expected, rtol=1e-5)


async def test_pictures_get_labels_and_boxes(client: InferenceRESTClient) -> None:
    raw = InferInput("IMAGE", [1, 1], "BYTES")
    raw.set_data_from_numpy(np.array([[picture("blue")]], np.object_), binary_data=True)
    text = base64.b64encode(picture("blue")).decode()
    for given in (raw, InferInput("IMAGE", [1, 1], "BYTES", data=[text])):
        response = await infer(client, "colors_image", given)
        (labels,) = [output for output in response.outputs if output.name == "labels"]
        assert labels.as_numpy().ravel()[0] in (b"blue", "blue")
    found = {o.name: o for o in (await infer(client, "boxes_image", raw)).outputs}
    assert found["boxes"].shape == [1, 2, 4]
    assert found["counts"].data == [2]


async def test_an_error_is_the_server_s(client: InferenceRESTClient) -> None:
    images = InferInput("images", [1, 3, 8, 8], "FP32")
    images.set_data_from_numpy(NOISE[:1])
    with pytest.raises(httpx.HTTPStatusError, match=r"nobody.*404 Not Found"):
        await infer(client, "nobody", images)
