"""`tritonclient.grpc.InferenceServerClient`: what there is, and its answers."""

import ast
import threading

import grpc
import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from .tensors import BOXES, given, logits, noise


def test_server_and_models_are_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("colors")
    assert client.is_model_ready("colors", "1")
    assert not client.is_model_ready("colors", "3")
    assert not client.is_model_ready("nobody")


def test_server_says_what_it_speaks(client: triton.InferenceServerClient) -> None:
    server = client.get_server_metadata()
    assert server.name
    assert server.version
    assert {"statistics", "model_configuration"} <= set(server.extensions)


def test_metadata_has_the_batch_in_front(client: triton.InferenceServerClient) -> None:
    colors = client.get_model_metadata("colors")
    assert (colors.name, list(colors.versions)) == ("colors", ["1", "2"])
    assert tensors(colors.inputs) == [("images", "FP32", [-1, 3, 8, 8])]
    assert tensors(colors.outputs) == [("logits", "FP32", [-1, 3])]
    boxes = client.get_model_metadata("boxes")
    assert tensors(boxes.inputs) == [("images", "FP32", [-1, 3, 64, 64])]
    assert tensors(boxes.outputs) == [("output0", "FP32", [-1, 6, 3])]


def tensors(described: list[service_pb2.ModelMetadataResponse.TensorMetadata]) -> list[object]:
    return [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in described]


@pytest.mark.parametrize("name", ["colors", "boxes", "colors_image", "boxes_image"])
def test_configuration_says_what_metadata_says(
    name: str, client: triton.InferenceServerClient
) -> None:
    metadata = client.get_model_metadata(name)
    config = client.get_model_config(name).config
    assert config.name == metadata.name == name
    assert config.platform == metadata.platform
    assert config.max_batch_size == 16
    assert not config.model_transaction_policy.decoupled
    for described, configured in (
        (metadata.inputs, config.input),
        (metadata.outputs, config.output),
    ):
        assert [
            (t.name, t.datatype.replace("BYTES", "STRING"), t.shape[1:]) for t in described
        ] == [(t.name, triton_datatype(t.data_type), t.dims) for t in configured]


def triton_datatype(number: int) -> str:
    return model_config_pb2.DataType.Name(number).removeprefix("TYPE_")


def test_configuration_names_the_classes(client: triton.InferenceServerClient) -> None:
    for name, task, names, size in (
        ("colors", "classify", {0: "red", 1: "green", 2: "blue"}, [8, 8]),
        ("boxes", "detect", {0: "cat", 1: "dog"}, [64, 64]),
    ):
        parameters = client.get_model_config(name).config.parameters
        metadata = ast.literal_eval(parameters["metadata"].string_value)
        assert metadata["names"] == names
        assert metadata["task"] == task
        assert list(metadata["imgsz"]) == size
        assert int(metadata["stride"]) >= 1


def test_index_lists_every_version(client: triton.InferenceServerClient) -> None:
    models = client.get_model_repository_index().models
    served = {(model.name, model.version): model.state for model in models}
    for known in (("boxes", "1"), ("colors", "1"), ("colors", "2")):
        assert served[known] == "READY"


def test_answer_is_the_models(client: triton.InferenceServerClient) -> None:
    inputs = noise()
    result = client.infer("colors", given(inputs))
    np.testing.assert_allclose(result.as_numpy("logits"), logits(inputs), rtol=1e-5)
    response = result.get_response()
    assert (response.model_name, response.model_version) == ("colors", "2")


def test_answer_is_that_of_the_version_that_was_asked(client: triton.InferenceServerClient) -> None:
    inputs = noise()
    result = client.infer("colors", given(inputs), model_version="1")
    np.testing.assert_allclose(result.as_numpy("logits"), logits(inputs, gain=10), rtol=1e-5)
    assert result.get_response().model_version == "1"


def test_detector_gives_scores_without_objectness(client: triton.InferenceServerClient) -> None:
    inputs = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    output = client.infer("boxes", given(inputs)).as_numpy("output0")
    np.testing.assert_allclose(output, np.stack([BOXES, BOXES]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [2, 16])
def test_batch_comes_back_in_order(batch: int, client: triton.InferenceServerClient) -> None:
    inputs = noise(batch)
    result = client.infer("colors", given(inputs))
    assert result.get_output("logits").shape == [batch, 3]
    np.testing.assert_allclose(result.as_numpy("logits"), logits(inputs), rtol=1e-5)


def test_request_comes_back_with_its_id_and_the_outputs_it_names(
    client: triton.InferenceServerClient,
) -> None:
    wanted = [triton.InferRequestedOutput("logits")]
    result = client.infer("colors", given(noise()), outputs=wanted, request_id="seven")
    response = result.get_response()
    assert response.id == "seven"
    assert [output.name for output in response.outputs] == ["logits"]
    assert len(response.raw_output_contents) == 1


def test_what_it_does_not_know_of_a_request_is_ignored(
    client: triton.InferenceServerClient,
) -> None:
    inputs = noise()
    result = client.infer(
        "colors",
        given(inputs),
        priority=1,
        sequence_id=7,
        sequence_start=True,
        parameters={"unknown": "yes", "also": 1.5},
    )
    np.testing.assert_allclose(result.as_numpy("logits"), logits(inputs), rtol=1e-5)


def test_many_requests_at_once_are_not_mixed_up(client: triton.InferenceServerClient) -> None:
    answers: dict[int, triton.InferResult | Exception] = {}
    done = threading.Semaphore(0)

    def ask(seed: int) -> None:
        def note(result: triton.InferResult | None, error: Exception | None) -> None:
            answers[seed] = error or result
            done.release()

        client.async_infer("colors", given(noise(seed=seed)), callback=note)

    for seed in range(50):
        ask(seed)
    for _ in range(50):
        assert done.acquire(timeout=60)
    for seed, answer in answers.items():
        assert isinstance(answer, triton.InferResult), answer
        expected = logits(noise(seed=seed))
        np.testing.assert_allclose(answer.as_numpy("logits"), expected, rtol=1e-5)


def test_typed_contents_are_answered_with_typed_contents(
    client: triton.InferenceServerClient, address: str
) -> None:
    inputs = noise(2)
    request = service_pb2.ModelInferRequest(model_name="colors")
    tensor = request.inputs.add(name="images", datatype="FP32", shape=inputs.shape)
    tensor.contents.fp32_contents.extend(inputs.ravel().tolist())
    with grpc.insecure_channel(address) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert not response.raw_output_contents
    (output,) = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("logits", "FP32", [2, 3])
    expected = logits(inputs).ravel()
    np.testing.assert_allclose(output.contents.fp32_contents, expected, rtol=1e-5)


def test_statistics_count_every_input(client: triton.InferenceServerClient) -> None:
    before = statistics(client)
    client.infer("colors", given(noise(3)))
    client.infer("colors", given(noise(1)))
    after = statistics(client)
    assert after.inference_count - before.inference_count == 4
    assert 1 <= after.execution_count - before.execution_count <= 4
    assert after.last_inference >= before.last_inference
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        was, now = (getattr(stats.inference_stats, stage) for stats in (before, after))
        assert now.count > was.count
        assert now.ns >= was.ns
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns


def test_what_is_refused_does_not_count_as_answered(client: triton.InferenceServerClient) -> None:
    before = statistics(client)
    with pytest.raises(triton.InferenceServerException):
        client.infer("colors", given(noise()[:, :2]))
    after = statistics(client)
    assert after.inference_stats.success.count == before.inference_stats.success.count


def test_statistics_without_a_version_are_those_of_all(
    client: triton.InferenceServerClient,
) -> None:
    of_colors = client.get_inference_statistics("colors").model_stats
    assert [(one.name, one.version) for one in of_colors] == [("colors", "1"), ("colors", "2")]
    of_all = client.get_inference_statistics().model_stats
    names = {(one.name, one.version) for one in of_all}
    assert {("boxes", "1"), ("colors", "1"), ("colors", "2")} <= names


def statistics(client: triton.InferenceServerClient) -> service_pb2.ModelStatistics:
    (stats,) = client.get_inference_statistics("colors", "2").model_stats
    assert (stats.name, stats.version) == ("colors", "2")
    return stats


def test_the_best_labels_come_as_triton_s_own_classification(
    client: triton.InferenceServerClient,
) -> None:
    wanted = [triton.InferRequestedOutput("logits", class_count=2)]
    best = client.infer("colors", given(noise()), outputs=wanted).as_numpy("logits")
    assert best.shape == (1, 2)
    (first, second) = (text.decode().split(":") for text in best[0])
    logits = client.infer("colors", given(noise())).as_numpy("logits")[0]
    assert int(first[1]) == logits.argmax() and float(first[0]) >= float(second[0])
    assert first[2] in ("red", "green", "blue")
