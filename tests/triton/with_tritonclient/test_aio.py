"""`tritonclient.grpc.aio`."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
from tritonclient.grpc import InferenceServerException, InferResult, aio

from .tensors import given, logits, noise


@pytest_asyncio.fixture
async def client(address: str) -> AsyncIterator[aio.InferenceServerClient]:
    async with aio.InferenceServerClient(address) as client:
        yield client


async def test_everything_is_ready(client: aio.InferenceServerClient) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("colors")


async def test_many_requests_at_once_are_not_mixed_up(client: aio.InferenceServerClient) -> None:
    async def ask(seed: int) -> None:
        inputs = noise(1 + seed % 4, seed)
        result = await client.infer("colors", given(inputs))
        np.testing.assert_allclose(result.as_numpy("logits"), logits(inputs), rtol=1e-5)

    await asyncio.gather(*map(ask, range(40)))


async def test_unknown_model_is_not_found(client: aio.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as refused:
        await client.infer("nobody", given(noise()))
    assert refused.value.status() == "StatusCode.NOT_FOUND"


async def test_a_stream_answers_and_goes_on_after_an_error(
    client: aio.InferenceServerClient,
) -> None:
    async def requests() -> AsyncIterator[dict[str, object]]:
        for name in ("colors", "nobody", "colors"):
            yield {"model_name": name, "inputs": given(noise()), "request_id": name}

    outcomes = [outcome async for outcome in client.stream_infer(requests())]
    errors = [str(error) for _, error in outcomes if error is not None]
    assert len(errors) == 1
    assert "nobody" in errors[0]
    results = [result for result, error in outcomes if error is None]
    assert len(results) == 2
    for result in results:
        assert isinstance(result, InferResult)
        np.testing.assert_allclose(result.as_numpy("logits"), logits(noise()), rtol=1e-5)
