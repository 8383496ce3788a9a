"""Conversion between the domain and the Open Inference Protocol's messages."""

from collections import defaultdict
from collections.abc import Mapping
from math import inf
from typing import Any, Final

from google.protobuf import json_format
from visavis.v1 import vision_pb2

from visavis_server.api.inference import grpc_service_pb2 as pb
from visavis_server.api.inference.parameters import Parameters, number, truth, whole
from visavis_server.api.inference.views import TensorSpec, TensorView, View
from visavis_server.card import Task, Yolov5Heads
from visavis_server.errors import InvalidRequest, listed
from visavis_server.models.served_model import ServedModel
from visavis_server.runtime.scheduling.scheduler import Statistics
from visavis_server.telemetry.histograms import Histogram

PLATFORM: Final = "onnxruntime_onnx"
CARD: Final = "visavis.card"
"""The parameter of a configuration that holds the card, as GetModel returns it, in JSON."""

# The stride that ultralytics assumes if a model has none.
_STRIDE: Final = 32


def read_parameters(parameters: Mapping[str, pb.InferParameter]) -> Parameters:
    """Return the values of parameters by name."""
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for name, value in parameters.items()
    }


def read_timeout_s(parameters: Parameters) -> float | None:
    """Return the timeout in a request's parameters; None if it has no positive one.

    Raises InvalidRequest unless it is a number, of microseconds.
    """
    microseconds = number(parameters, "timeout")
    return microseconds / 1e6 if microseconds and 0 < microseconds < inf else None


def wants_final_response(request: pb.ModelInferRequest) -> bool:
    """Return True if the last response to a request must be marked as the last."""
    name = "triton_enable_empty_final_response"
    if name not in request.parameters:
        return False
    return truth(read_parameters({name: request.parameters[name]}), name) is True


def read_wanted(request: pb.ModelInferRequest, view: View, task: Task) -> dict[str, int]:
    """Return the requested outputs by name; all outputs if the request names none.

    The value is the number of best labels to return instead of the scores, or 0 for the scores.
    """
    names = [spec.name for spec in view.outputs]
    wanted: dict[str, int] = {}
    for index, output in enumerate(request.outputs):
        field = f"outputs[{index}]"
        if output.name not in names:
            raise InvalidRequest(
                f"{field}.name",
                f"no output is named {output.name[:64]!r}; the outputs are {listed(names)}",
            )
        if "shared_memory_region" in output.parameters:
            raise InvalidRequest(f"{field}.parameters", "shared memory is not supported")
        parameters = read_parameters(output.parameters)
        best = whole(parameters, "classification", f"{field}.parameters") or 0
        if best and not (isinstance(view, TensorView) and task is Task.CLASSIFICATION):
            raise InvalidRequest(
                f"{field}.parameters", "classification applies only to a classifier's scores"
            )
        wanted[output.name] = max(best, 0)
    return wanted or dict.fromkeys(names, 0)


def tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    """Return a tensor's metadata; its first dimension is the batch."""
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=(-1, *spec.shape)
    )


def model_config(
    name: str, model: ServedModel, view: View, card: vision_pb2.Model
) -> pb.ModelConfig:
    """Return the configuration of one view of a model. card: with labels and receipt."""
    on_device = model.plan.runs_on == "device"
    kinds = pb.ModelInstanceGroup.Kind
    config = pb.ModelConfig(
        name=name,
        platform=PLATFORM,
        backend="onnxruntime",
        version_policy=pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All()),
        max_batch_size=view.max_batch,
        input=[
            pb.ModelInput(name=s.name, data_type=_data_type(s), dims=s.shape, format=_format(s))
            for s in view.inputs
        ],
        output=[
            pb.ModelOutput(name=s.name, data_type=_data_type(s), dims=s.shape) for s in view.outputs
        ],
        dynamic_batching=pb.ModelDynamicBatching(),
        instance_group=[
            pb.ModelInstanceGroup(
                name=name,
                kind=kinds.KIND_GPU if on_device else kinds.KIND_CPU,
                count=model.plan.instances,
            )
        ],
        default_model_filename="model.onnx",
    )
    config.parameters["metadata"].string_value = repr(_ultralytics_metadata(model))
    config.parameters[CARD].string_value = json_format.MessageToJson(
        card, indent=None, ensure_ascii=False
    )
    return config


def statistics(model: ServedModel, counted: Statistics) -> pb.ModelStatistics:
    """Return the statistics of a model's requests; counted: the statistics of its runs."""
    stages = model.stages
    images = sum(size * runs for size, runs in counted.batches.items())
    compute_input = _duration(stages.preprocess)
    compute_input.ns += _ns(stages.decode.sum_s)
    return pb.ModelStatistics(
        name=model.name,
        version=str(model.version),
        last_inference=round(stages.last * 1e3),
        inference_count=images,
        execution_count=sum(counted.batches.values()),
        inference_stats=pb.InferStatistics(
            success=_duration(stages.total),
            fail=_duration(stages.failed),
            queue=_duration(stages.queue),
            compute_input=compute_input,
            compute_infer=_duration(stages.inference),
            compute_output=_duration(stages.postprocess),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size,
                compute_infer=pb.StatisticDuration(count=runs, ns=_ns(counted.batch_s[size])),
            )
            for size, runs in sorted(counted.batches.items())
        ],
    )


def total(*several: pb.ModelStatistics) -> pb.ModelStatistics:
    """Return the sum of the statistics of one version of a model, from several processes."""
    summed = pb.ModelStatistics()
    batches: defaultdict[int, pb.StatisticDuration] = defaultdict(pb.StatisticDuration)
    for each in several:
        summed.name, summed.version = each.name, each.version
        summed.last_inference = max(summed.last_inference, each.last_inference)
        summed.inference_count += each.inference_count
        summed.execution_count += each.execution_count
        for field, duration in each.inference_stats.ListFields():
            _add(getattr(summed.inference_stats, field.name), duration)
        for batch in each.batch_stats:
            _add(batches[batch.batch_size], batch.compute_infer)
    for size, duration in sorted(batches.items()):
        summed.batch_stats.add(batch_size=size, compute_infer=duration)
    return summed


def _add(summed: pb.StatisticDuration, duration: pb.StatisticDuration) -> None:
    summed.count += duration.count
    summed.ns += duration.ns


def _data_type(spec: TensorSpec) -> str:
    return "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"


def _format(spec: TensorSpec) -> str:
    return "FORMAT_NCHW" if len(spec.shape) == 3 else "FORMAT_NONE"


def _ultralytics_metadata(model: ServedModel) -> dict[str, Any]:
    """Return the metadata that ultralytics writes into its exports and its client reads."""
    document = model.document
    output = document.output
    return {
        "task": "detect" if document.task is Task.OBJECT_DETECTION else "classify",
        "stride": max(output.strides) if isinstance(output, Yolov5Heads) else _STRIDE,
        "batch": 1,
        "imgsz": [document.input.height, document.input.width],
        "names": dict(enumerate(document.label_set.labels)),
    }


def _duration(histogram: Histogram) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=histogram.count, ns=_ns(histogram.sum_s))


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
