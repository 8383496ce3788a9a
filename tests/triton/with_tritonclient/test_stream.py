"""`tritonclient.grpc` on a stream."""

import queue
from collections.abc import Iterator

import numpy as np
import pytest
from tritonclient import grpc as triton

from .tensors import given, logits, noise

Outcome = triton.InferResult | triton.InferenceServerException


@pytest.fixture
def outcomes(client: triton.InferenceServerClient) -> Iterator["queue.Queue[Outcome]"]:
    """Start a stream; what comes back on it is put in a queue."""
    outcomes: queue.Queue[Outcome] = queue.Queue()
    client.start_stream(lambda result, error: outcomes.put(error or result))
    yield outcomes
    client.stop_stream()
    assert outcomes.empty()


def test_every_request_is_answered_once(
    client: triton.InferenceServerClient, outcomes: "queue.Queue[Outcome]"
) -> None:
    for seed in range(20):
        client.async_stream_infer("colors", given(noise(seed=seed)), request_id=str(seed))
    answers = {}
    for _ in range(20):
        result = outcomes.get(timeout=60)
        assert isinstance(result, triton.InferResult), result
        answers[int(result.get_response().id)] = result.as_numpy("logits")
    assert len(answers) == 20
    for seed, answer in answers.items():
        np.testing.assert_allclose(answer, logits(noise(seed=seed)), rtol=1e-5)


def test_a_wrong_request_is_told_so_and_the_stream_goes_on(
    client: triton.InferenceServerClient, outcomes: "queue.Queue[Outcome]"
) -> None:
    for name, told in (("nobody", "nobody"), ("colors", "2")):
        client.async_stream_infer(name, given(noise()[:, :2]))
        error = outcomes.get(timeout=60)
        assert isinstance(error, triton.InferenceServerException)
        assert told in error.message()
        client.async_stream_infer("colors", given(noise()))
        assert isinstance(outcomes.get(timeout=60), triton.InferResult)


def test_the_answer_says_that_it_is_the_last(
    client: triton.InferenceServerClient, outcomes: "queue.Queue[Outcome]"
) -> None:
    client.async_stream_infer("colors", given(noise()), enable_empty_final_response=True)
    result = outcomes.get(timeout=60)
    assert isinstance(result, triton.InferResult)
    response = result.get_response()
    assert response.parameters["triton_final_response"].bool_param
    assert len(response.outputs) == 1
