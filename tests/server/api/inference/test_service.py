"""The Open Inference Protocol over a real channel; tests/triton has Triton's own clients."""

import ast
import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import PIL.Image
import pytest
import pytest_asyncio
from google.protobuf import message_factory
from structlog.testing import capture_logs
from visavis.v1 import vision_pb2

from visavis_server.api.inference import grpc_service_pb2 as pb
from visavis_server.api.inference.tensors import Request, read_inputs
from visavis_server.app import App
from visavis_server.card import Letterbox, ModelInput
from visavis_server.settings import ImageLimits
from visavis_server.transport.tokens import NewToken
from visavis_server.vision.families import family_of, preprocess_one
from visavis_server.vision.image import decode

from ... import graphs
from ...pictures import BLUE, GREEN, RED, plain
from ...serving import Served, image, served_by, settings, violations
from ...test_app import Blocked

COLORS, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
Array = np.ndarray[Any, Any]


class Stub:
    """Calls the service's methods on a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        for method in SERVICE.methods:
            kind = channel.stream_stream if method.server_streaming else channel.unary_unary
            answer = message_factory.GetMessageClass(method.output_type)
            call = kind(
                f"/{SERVICE.full_name}/{method.name}",
                lambda message: message.SerializeToString(),
                answer.FromString,
            )
            setattr(self, method.name, call)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@pytest_asyncio.fixture
async def triton(served: Served) -> Stub:
    return Stub(served.channel)


def request_of(model: str, name: str, array: Array, raw: bool = True, **fields: Any) -> Any:
    """Return a request with one input."""
    datatype = {"float32": "FP32", "float16": "FP16", "uint8": "UINT8", "object": "BYTES"}[
        str(array.dtype)
    ]
    request = pb.ModelInferRequest(model_name=model, **fields)
    tensor = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
    if datatype == "BYTES":
        tensor.contents.bytes_contents.extend(array.ravel())
    elif raw:
        request.raw_input_contents.append(array.tobytes())
    else:
        tensor.contents.fp32_contents.extend(array.ravel())
    return request


def tensor_of(color: tuple[int, int, int], document: Any = None) -> Array:
    """Return a picture as a model's input [1, 3, height, width]."""
    family = family_of(document or graphs.classifier_document())
    return preprocess_one(family, decode(plain(color), ImageLimits()))[0]


def encoded(*colors: tuple[int, int, int]) -> Array:
    array = np.empty((len(colors), 1), object)
    array[:, 0] = [plain(color) for color in colors]
    return array


def outputs(response: pb.ModelInferResponse) -> dict[str, Array]:
    """Return a response's outputs as arrays."""
    request = pb.ModelInferRequest(raw_input_contents=response.raw_output_contents)
    for output in response.outputs:
        request.inputs.add().ParseFromString(output.SerializeToString())
    return read_inputs(Request(request, request.raw_input_contents))


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


async def test_the_server_is_live_and_ready_and_lists_its_extensions(triton: Stub) -> None:
    assert (await triton.ServerLive(pb.ServerLiveRequest())).live
    assert (await triton.ServerReady(pb.ServerReadyRequest())).ready
    about = await triton.ServerMetadata(pb.ServerMetadataRequest())
    assert about.name == "visavis" and "statistics" in about.extensions
    for name, version, ready in (
        ("colors", "", True),
        ("colors", "1", True),
        ("colors_image", "2", True),
        ("colors", "9", False),
        ("colors", "x", False),
        ("nobody", "", False),
    ):
        request = pb.ModelReadyRequest(name=name, version=version)
        assert (await triton.ModelReady(request)).ready is ready


@pytest.mark.parametrize("raw", [True, False])
async def test_a_classifier_takes_a_tensor_and_returns_logits(triton: Stub, raw: bool) -> None:
    batch = np.concatenate([tensor_of(color) for color in (RED, GREEN, BLUE)])
    request = request_of("colors", "images", batch, raw, model_version="1", id="mine")
    response = await triton.ModelInfer(request)
    assert (response.model_name, response.model_version, response.id) == ("colors", "1", "mine")
    assert bool(response.raw_output_contents) is raw
    (logits,) = outputs(response).values()
    np.testing.assert_allclose(logits, np.eye(3) * 10, atol=1e-5)


async def test_half_precision_is_accepted(triton: Stub) -> None:
    response = await triton.ModelInfer(
        request_of("colors", "images", tensor_of(RED).astype(np.float16))
    )
    np.testing.assert_allclose(outputs(response)["logits"], [[20, 0, 0]], atol=0.01)


async def test_a_detector_returns_boxes_and_scores_whatever_its_graph_outputs(triton: Stub) -> None:
    document = graphs.detector_document()
    response = await triton.ModelInfer(request_of("boxes", "images", tensor_of(RED, document)))
    (rows,) = outputs(response).values()
    expected = graphs.ROWS[0]
    np.testing.assert_allclose(rows[0, :4].T, expected[:, :4])
    np.testing.assert_allclose(rows[0, 4:].T, expected[:, 5:] * expected[:, 4:5], rtol=1e-6)


async def test_heads_are_decoded_as_yolov5_decodes_them(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    maps = [chance.normal(size=(1, 2 * 7, side, side)).astype(np.float32) for side in (8, 4)]
    document = graphs.detector_document(
        output=graphs.yolov5_heads(),
        input=ModelInput(tensor="images", width=64, height=64, resize=Letterbox(unpad="exact")),
    )
    graph = graphs.constant(*graphs.split_heads(maps))
    graphs.put(tmp_path, "heads", 1, graphs.export(graph, document)[0])
    async with served_by(App(settings(tmp_path))) as served:
        stub = Stub(served.channel)
        about = await stub.ModelMetadata(pb.ModelMetadataRequest(name="heads"))
        response = await stub.ModelInfer(request_of("heads", "images", tensor_of(RED, document)))
    (rows,) = outputs(response).values()
    assert list(rows.shape[1:]) == list(about.outputs[0].shape[1:]) == [6, 2 * 64 + 2 * 16]
    # Cell by cell, and number by number.
    expected = []
    for one, anchors, stride in zip(maps, graphs.ANCHORS, graphs.STRIDES, strict=True):
        for a, (width, height) in enumerate(anchors):
            for y in range(one.shape[2]):
                for x in range(one.shape[3]):
                    s = 1 / (1 + np.exp(-one[0, a * 7 : a * 7 + 7, y, x].astype(float)))
                    box = [(s[0] * 2 - 0.5 + x) * stride, (s[1] * 2 - 0.5 + y) * stride]
                    box += [(s[2] * 2) ** 2 * width, (s[3] * 2) ** 2 * height]
                    expected.append([*box, *(s[5:] * s[4])])
    np.testing.assert_allclose(rows[0].T, expected, rtol=1e-4, atol=1e-4)


async def test_the_image_view_of_a_classifier_returns_labels(triton: Stub) -> None:
    request = request_of("colors_image", "IMAGE", encoded(GREEN, BLUE))
    request.parameters["top_k"].int64_param = 2
    found = outputs(await triton.ModelInfer(request))
    assert found["labels"][:, 0].tolist() == [b"green", b"blue"]
    assert found["class_ids"][:, 0].tolist() == [1, 2] and found["scores"].shape == (2, 2)


async def test_the_image_view_of_a_detector_returns_the_boxes_of_detect(
    served: Served, triton: Stub
) -> None:
    request = request_of("boxes_image", "IMAGE", encoded(RED, RED))
    request.parameters["score_threshold"].double_param = 0.3
    found = outputs(await triton.ModelInfer(request))
    detected = await served.stub.Detect(
        vision_pb2.DetectRequest(model="boxes", image=image(), score_threshold=0.3)
    )
    boxes = [[d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max] for d in detected.detections]
    np.testing.assert_array_equal(found["boxes"][1], np.array(boxes, np.float32))
    assert found["counts"].tolist() == [[len(boxes)]] * 2
    assert [label.decode() for label in found["labels"][0]] == [
        d.label for d in detected.detections
    ]


async def test_an_encoded_picture_may_be_uint8(triton: Stub) -> None:
    data = np.frombuffer(plain(BLUE), np.uint8)[None]
    found = outputs(await triton.ModelInfer(request_of("colors_image", "IMAGE", data)))
    assert found["labels"][0, 0] == b"blue"


async def test_only_the_requested_outputs_are_returned_in_their_order(triton: Stub) -> None:
    request = request_of("colors_image", "IMAGE", encoded(RED))
    for name in ("scores", "labels"):
        request.outputs.add(name=name)
    assert list(outputs(await triton.ModelInfer(request))) == ["scores", "labels"]


@pytest.mark.parametrize(
    ("request_", "code", "field", "words"),
    [
        (request_of("nobody", "images", tensor_of(RED)), NOT_FOUND, "model_name", "the models are"),
        (
            request_of("colors", "images", tensor_of(RED), model_version="01"),
            INVALID,
            "model_version",
            "a positive integer",
        ),
        (
            request_of("colors", "pictures", tensor_of(RED)),
            INVALID,
            "inputs",
            "takes exactly one, images",
        ),
        (
            request_of("colors", "images", tensor_of(RED)[:, :, :-1]),
            INVALID,
            "inputs[0].shape",
            "[1, 3, 7, 8]; colors takes ['1 to 16', 3, 8, 8]",
        ),
        (
            request_of("colors", "images", np.zeros((17, 3, 8, 8), np.float32)),
            INVALID,
            "inputs[0].shape",
            "1 to 16",
        ),
        (
            request_of("colors", "images", np.zeros((0, 3, 8, 8), np.float32)),
            INVALID,
            "inputs[0].shape",
            "1 to 16",
        ),
        (
            request_of("colors", "images", np.zeros((1, 3, 8, 8), np.uint8)),
            INVALID,
            "inputs[0].datatype",
            "images is UINT8; colors takes FP32",
        ),
        (
            request_of("colors_image", "IMAGE", np.array([b"nothing"], object)),
            INVALID,
            "inputs[0].contents",
            "only JPEG, PNG and WebP",
        ),
        (
            request_of("colors_image", "IMAGE", np.empty((0, 1), object)),
            INVALID,
            "inputs[0].shape",
            "1 to 16 encoded pictures",
        ),
        (
            request_of("colors_image", "IMAGE", np.zeros((1, 3, 8, 8), np.float32)),
            INVALID,
            "inputs[0].shape",
            "as BYTES [b, 1]",
        ),
    ],
)
async def test_an_invalid_request_is_rejected_by_its_field(
    triton: Stub, request_: Any, code: grpc.StatusCode, field: str, words: str
) -> None:
    error = await refused(triton.ModelInfer(request_))
    assert error.code() is code
    assert words in violations(error)[field]


async def test_unsupported_parameters_are_rejected(triton: Stub) -> None:
    request = request_of("colors", "images", tensor_of(RED))
    request.outputs.add(name="logits").parameters["shared_memory_region"].string_param = "secret"
    assert "shared memory" in str((await refused(triton.ModelInfer(request))).details())
    request = request_of("boxes", "images", tensor_of(RED, graphs.detector_document()))
    request.outputs.add(name="output0").parameters["classification"].int64_param = 3
    assert "a classifier's scores" in str((await refused(triton.ModelInfer(request))).details())
    request = request_of("colors_image", "IMAGE", encoded(RED))
    request.parameters["top_k"].string_param = "many"
    assert "top_k is 'many'" in str((await refused(triton.ModelInfer(request))).details())


async def test_parameters_may_be_strings(triton: Stub) -> None:
    """KServe's client can't send a float."""
    texts = {"score_threshold": "0.3", "max_detections": "1", "class_agnostic": "true"}
    request = request_of("boxes_image", "IMAGE", encoded(RED))
    for name, text in texts.items():
        request.parameters[name].string_param = text
    assert outputs(await triton.ModelInfer(request))["counts"].tolist() == [[1]]
    request.parameters["score_threshold"].string_param = "1"
    assert outputs(await triton.ModelInfer(request))["counts"].tolist() == [[0]]
    request = request_of("colors", "images", tensor_of(GREEN))
    request.outputs.add(name="logits").parameters["classification"].string_param = "2"
    (best,) = outputs(await triton.ModelInfer(request)).values()
    assert best[0, 0] == b"20.000000:1:green"
    for text in ("soon", ""):
        request.parameters["timeout"].string_param = text
        error = await refused(triton.ModelInfer(request))
        assert violations(error)["parameters[timeout]"] == (
            f"timeout is {text!r}; it must be a number"
        )


@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp"])
async def test_a_bare_picture_is_accepted_as_raw_bytes(triton: Stub, suffix: str) -> None:
    picture = io.BytesIO()
    PIL.Image.new("RGB", (64, 64), BLUE).save(picture, suffix)
    request = pb.ModelInferRequest(
        model_name="colors_image", raw_input_contents=[picture.getvalue()]
    )
    request.inputs.add(name="IMAGE", datatype="BYTES", shape=[1, 1])
    assert outputs(await triton.ModelInfer(request))["labels"][0, 0] == b"blue"


async def test_a_classifier_returns_its_best_scores_in_triton_s_format(triton: Stub) -> None:
    request = request_of("colors", "images", tensor_of(GREEN))
    request.outputs.add(name="logits").parameters["classification"].int64_param = 2
    (best,) = outputs(await triton.ModelInfer(request)).values()
    assert best.shape == (1, 2) and best[0, 0] == b"20.000000:1:green"


async def test_nan_passes_through(triton: Stub) -> None:
    batch = np.full((1, 3, 8, 8), np.nan, np.float32)
    assert np.isnan(
        outputs(await triton.ModelInfer(request_of("colors", "images", batch)))["logits"]
    ).all()


async def test_a_batch_fits_into_a_message(models: Path) -> None:
    async with served_by(App(settings(models, max_message_bytes=200_000))) as served:
        stub = Stub(served.channel)
        config = (await stub.ModelConfig(pb.ModelConfigRequest(name="boxes"))).config
        assert config.max_batch_size == (200_000 - 65_536) // (4 * 3 * 64 * 64)


async def test_one_bad_picture_fails_its_request_and_nothing_else(triton: Stub) -> None:
    array = encoded(RED, GREEN)
    array[1, 0] = b"\xff\xd8\xff half of a picture"
    error = await refused(triton.ModelInfer(request_of("colors_image", "IMAGE", array)))
    assert error.code() is INVALID
    answer = await triton.ModelInfer(request_of("colors_image", "IMAGE", encoded(RED)))
    assert outputs(answer)["labels"][0, 0] == b"red"


async def test_the_timeout_in_the_request_is_kept(triton: Stub) -> None:
    request = request_of("colors", "images", tensor_of(RED))
    request.parameters["timeout"].int64_param = 1  # microsecond
    error = await refused(triton.ModelInfer(request))
    assert error.code() in (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )


async def test_metadata_and_config_agree_but_for_the_batch(triton: Stub) -> None:
    about = await triton.ModelMetadata(pb.ModelMetadataRequest(name="boxes"))
    config = (await triton.ModelConfig(pb.ModelConfigRequest(name="boxes"))).config
    assert list(about.versions) == ["1"]
    assert [list(t.shape) for t in (*about.inputs, *about.outputs)] == [
        [-1, 3, 64, 64],
        [-1, 6, 3],
    ]
    assert [list(t.dims) for t in (*config.input, *config.output)] == [[3, 64, 64], [6, 3]]
    assert config.max_batch_size == 16
    assert config.input[0].data_type == pb.DataType.Value("TYPE_FP32")
    literal = ast.literal_eval(config.parameters["metadata"].string_value)
    assert literal["names"] == {0: "cat", 1: "dog"} and literal["task"] == "detect"
    both = (await triton.ModelMetadata(pb.ModelMetadataRequest(name="colors"))).versions
    assert list(both) == ["1", "2"]


async def test_statistics_count_the_requests_of_all_services(served: Served, triton: Stub) -> None:
    async def statistics(name: str) -> pb.ModelStatistics:
        request = pb.ModelStatisticsRequest(name=name, version="2")
        (found,) = (await triton.ModelStatistics(request)).model_stats
        return found

    before = await statistics("colors")
    await triton.ModelInfer(request_of("colors", "images", np.repeat(tensor_of(RED), 3, axis=0)))
    await triton.ModelInfer(request_of("colors_image", "IMAGE", encoded(RED)))
    await served.stub.Classify(vision_pb2.ClassifyRequest(model="colors", image=image()))
    bad = np.array([b"nothing"], object)
    await refused(triton.ModelInfer(request_of("colors_image", "IMAGE", bad)))
    after = await statistics("colors")
    assert after.inference_count - before.inference_count == 5
    assert after.inference_stats.success.count - before.inference_stats.success.count == 3
    assert after.inference_stats.queue.count - before.inference_stats.queue.count == 3
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert after.last_inference > before.last_inference
    assert sum(b.batch_size * b.compute_infer.count for b in after.batch_stats) == 5
    assert (await statistics("colors_image")).inference_count == after.inference_count
    both = await triton.ModelStatistics(pb.ModelStatisticsRequest(name="colors"))
    assert [s.version for s in both.model_stats] == ["1", "2"]
    everything = await triton.ModelStatistics(pb.ModelStatisticsRequest())
    assert {s.name for s in everything.model_stats} >= {"colors", "boxes", "pets"}


async def test_a_stream_answers_in_order_and_an_error_does_not_end_it(triton: Stub) -> None:
    asked = [
        request_of("colors", "images", tensor_of(RED), id="1"),
        request_of("nobody", "images", tensor_of(RED), id="2"),
        request_of("colors", "images", tensor_of(GREEN), id="3"),
    ]
    asked[2].parameters["triton_enable_empty_final_response"].string_param = "True"
    answers = [answer async for answer in triton.ModelStreamInfer(iter(asked))]
    assert [answer.infer_response.id for answer in answers] == ["1", "2", "3"]
    assert "there is no model 'nobody'" in answers[1].error_message
    assert outputs(answers[2].infer_response)["logits"].argmax() == 1
    assert answers[2].infer_response.parameters["triton_final_response"].bool_param


async def test_a_stream_answers_every_one_of_many_requests(triton: Stub) -> None:
    asked = (request_of("colors", "images", tensor_of(RED), id=str(i)) for i in range(100))
    answers = [answer async for answer in triton.ModelStreamInfer(asked)]
    assert [answer.infer_response.id for answer in answers] == [str(i) for i in range(100)]


async def test_a_silent_stream_times_out(models: Path) -> None:
    async with served_by(App(settings(models, message_timeout_s=0.2))) as served:
        call = Stub(served.channel).ModelStreamInfer()
        await call.write(request_of("colors", "images", tensor_of(RED)))
        assert (await call.read()).infer_response.model_name == "colors"
        with pytest.raises(grpc.aio.AioRpcError, match="did not arrive within"):
            await call.read()
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_stopping_server_answers_the_requests_of_a_stream_and_ends_it(
    models: Path,
) -> None:
    app = App(settings(models))
    async with served_by(app) as served:
        call = Stub(served.channel).ModelStreamInfer()
        await call.write(request_of("colors", "images", tensor_of(RED), id="1"))
        assert (await call.read()).infer_response.id == "1"
        await asyncio.wait_for(app.stop(), 5)
        with pytest.raises(grpc.aio.AioRpcError, match="the server is stopping"):
            await call.read()


async def test_a_token_is_required(models: Path, tokens: Path, token: NewToken) -> None:
    async with served_by(App(settings(models, tokens=tokens))) as served:
        stub = Stub(served.channel)
        error = await refused(stub.ServerLive(pb.ServerLiveRequest()))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        bearer = (("authorization", f"Bearer {token.token}"),)
        assert (await stub.ServerLive(pb.ServerLiveRequest(), metadata=bearer)).live


async def test_administration_is_off_by_default(triton: Stub) -> None:
    for call in (
        triton.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="colors")),
        triton.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="colors")),
    ):
        error = await refused(call)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "the setting admin" in str(error.details())


@pytest_asyncio.fixture
async def administered(tmp_path: Path) -> AsyncIterator[Stub]:
    for name in ("colors", "others"):
        graphs.put(tmp_path, name, 1, COLORS)
    async with served_by(App(settings(tmp_path, admin=True, load_timeout_s=60))) as served:
        yield Stub(served.channel)


async def index(stub: Stub) -> list[str]:
    """Return the names and versions of the ready models."""
    models = (await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))).models
    assert {model.state for model in models} == {"READY"}
    return [f"{model.name}/{model.version}" for model in models]


async def not_served(stub: Stub) -> dict[str, str]:
    """Return the reason of each that is not ready."""
    models = (await stub.RepositoryIndex(pb.RepositoryIndexRequest())).models
    away = [model for model in models if model.state != "READY"]
    assert {model.state for model in away} <= {"UNAVAILABLE"}
    return {f"{model.name}/{model.version}": model.reason for model in away}


async def test_models_are_unloaded_and_loaded_again(administered: Stub, tmp_path: Path) -> None:
    assert await index(administered) == ["colors/1", "colors_image/1", "others/1", "others_image/1"]
    unload = pb.RepositoryModelUnloadRequest(model_name="colors")
    await administered.RepositoryModelUnload(unload)
    assert await index(administered) == ["others/1", "others_image/1"]
    assert await not_served(administered) == dict.fromkeys(
        ("colors/1", "colors_image/1"), "unloaded"
    )
    ask = administered.ModelInfer(request_of("colors", "images", tensor_of(RED)))
    assert "model colors is not being served" in str((await refused(ask)).details())
    assert (await refused(administered.RepositoryModelUnload(unload))).code() is NOT_FOUND
    file, _ = graphs.export(graphs.classifier(gain=20), graphs.classifier_document())
    graphs.put(tmp_path, "colors", 2, file)
    await administered.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="colors"))
    assert (await index(administered))[:2] == ["colors/1", "colors_image/1"]
    assert await not_served(administered) == {}
    answer = await administered.ModelInfer(request_of("colors", "images", tensor_of(RED)))
    assert answer.model_version == "2"
    np.testing.assert_allclose(outputs(answer)["logits"][0, 0], 20)


async def test_an_invalid_file_is_rejected_with_the_reason_and_the_served_models_stay(
    administered: Stub, tmp_path: Path
) -> None:
    graphs.put(tmp_path, "colors", 2, b"nonsense")
    load = pb.RepositoryModelLoadRequest(model_name="colors")
    error = await refused(administered.RepositoryModelLoad(load))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "colors/2/model.onnx" in str(error.details())
    assert "colors/1" in await index(administered)
    away = await not_served(administered)
    assert away.keys() == {"colors/2", "colors_image/2"}
    assert away["colors/2"].startswith("colors/2/model.onnx: ")
    ask = request_of("colors", "images", tensor_of(RED), model_version="2")
    error = await refused(administered.ModelInfer(ask))
    assert "version 2 of model colors is not being served" in str(error.details())
    unknown = pb.RepositoryModelLoadRequest(model_name="../secret")
    assert (await refused(administered.RepositoryModelLoad(unknown))).code() is NOT_FOUND
    (tmp_path / "pets" / "01").mkdir(parents=True)
    misnamed = pb.RepositoryModelLoadRequest(model_name="pets")
    error = await refused(administered.RepositoryModelLoad(misnamed))
    assert "a version has no leading zeros; rename it to 1" in str(error.details())
    load.parameters["config"].string_param = "{}"
    assert (await refused(administered.RepositoryModelLoad(load))).code() is INVALID


async def test_a_model_rejected_at_start_is_listed_with_the_reason(tmp_path: Path) -> None:
    graphs.put(tmp_path, "broken", 1, b"nonsense")
    graphs.put(tmp_path, "colors", 1718000000, COLORS)
    async with served_by(App(settings(tmp_path))) as served:
        stub = Stub(served.channel)
        away = await not_served(stub)
        assert away["broken/1"].startswith("broken/1/model.onnx: ")
        assert await index(stub) == ["colors/1718000000", "colors_image/1718000000"]
        request = request_of("colors", "images", tensor_of(RED), model_version="1718000000")
        assert outputs(await stub.ModelInfer(request))["logits"].argmax() == 0


async def test_a_picture_view_never_takes_the_name_of_a_model(tmp_path: Path) -> None:
    """Neither while that model is served, nor when it is not."""
    graphs.put(tmp_path, "cats", 1, COLORS)
    graphs.put(tmp_path, "cats_image", 3, COLORS)
    with capture_logs() as logs:
        async with served_by(App(settings(tmp_path, admin=True))) as served:
            stub = Stub(served.channel)
            assert await index(stub) == ["cats/1", "cats_image/3", "cats_image_image/3"]
            answer = await stub.ModelInfer(request_of("cats_image", "images", tensor_of(RED)))
            assert answer.model_version == "3"
            await stub.RepositoryModelUnload(
                pb.RepositoryModelUnloadRequest(model_name="cats_image")
            )
            request = pb.ModelReadyRequest(name="cats_image")
            assert not (await stub.ModelReady(request)).ready
            error = await refused(stub.ModelInfer(request_of("cats_image", "IMAGE", encoded(RED))))
            assert error.code() is NOT_FOUND and "not being served" in str(error.details())
            assert await not_served(stub) == dict.fromkeys(
                ("cats_image/3", "cats_image_image/3"), "unloaded"
            )
    warnings = [entry for entry in logs if entry["event"] == "no picture view"]
    assert [(entry["model"], entry["why"]) for entry in warnings] == [
        ("cats", "another model is named cats_image; rename it to serve both")
    ]


async def test_tensors_and_pictures_share_batches(served: Served, triton: Stub) -> None:
    calls = [
        *(triton.ModelInfer(request_of("colors", "images", tensor_of(RED))) for _ in range(20)),
        *(
            served.stub.Classify(vision_pb2.ClassifyRequest(model="colors", image=image()))
            for _ in range(20)
        ),
    ]

    async def wait(call: Any) -> Any:
        return await call

    for answer in await asyncio.gather(*map(wait, calls)):
        if isinstance(answer, pb.ModelInferResponse):
            assert outputs(answer)["logits"].argmax() == 0
        else:
            assert answer.classifications[0].label == "red"
    counted = served.app.scheduler.statistics()
    (colors,) = [s for engine, s in counted.items() if engine.name == "colors" and s.batches]
    assert sum(size * runs for size, runs in colors.batches.items()) == 40


async def test_a_cancelled_stream_leaves_no_task_behind(
    served: Served, triton: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = Blocked(monkeypatch)
    await triton.ServerLive(pb.ServerLiveRequest())
    before = asyncio.all_tasks()
    # More than are answered at once, so that the next one waits for a place.
    requests = [request_of("colors", "images", tensor_of(RED)) for _ in range(40)]
    call = triton.ModelStreamInfer(iter(requests))
    reading = asyncio.create_task(call.read())

    def at_work(of: str) -> int:
        # gRPC's own task that waits for the next call is another one each time.
        return sum(
            of in repr(task) and "AioServer" not in repr(task)
            for task in asyncio.all_tasks() - before
        )

    async with asyncio.timeout(10):
        while at_work("infer_in_stream") < 16:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # The next request has been read, too.
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        # While the model still runs: a task that was left behind would wait for it.
        while at_work(""):
            await asyncio.sleep(0.01)
    blocked.may_end.set()
