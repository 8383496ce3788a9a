"""Between the domain and the Open Inference Protocol's messages."""

from collections.abc import Mapping
from math import inf
from typing import Any, Final

from visavis_server.api.inference import grpc_service_pb2 as pb
from visavis_server.api.inference.parameters import Parameters, number, truth, whole
from visavis_server.api.inference.views import TensorSpec, TensorView, View
from visavis_server.card import Task, Yolov5Heads
from visavis_server.errors import InvalidRequest, listed
from visavis_server.models.served_model import ServedModel
from visavis_server.runtime.scheduling.scheduler import Statistics
from visavis_server.telemetry.histograms import Histogram

PLATFORM: Final = "onnxruntime_onnx"

# What ultralytics takes as stride where a model names none.
_STRIDE: Final = 32


def read_parameters(given: Mapping[str, pb.InferParameter]) -> Parameters:
    """Return parameters by name, each as the value that was sent."""
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for name, value in given.items()
    }


def read_timeout_s(parameters: Parameters) -> float | None:
    """Return how long a request may take, by its own parameters; None: they don't say.

    Raises InvalidRequest if they say it in other words than microseconds.
    """
    microseconds = number(parameters, "timeout")
    return microseconds / 1e6 if microseconds and 0 < microseconds < inf else None


def wants_final_response(request: pb.ModelInferRequest) -> bool:
    """Say whether the last response to a request is to say that it is the last."""
    name = "triton_enable_empty_final_response"
    if name not in request.parameters:
        return False
    return truth(read_parameters({name: request.parameters[name]}), name) is True


def read_wanted(request: pb.ModelInferRequest, view: View, task: Task) -> dict[str, int]:
    """Return the outputs that a request asks for, all if it names none.

    Of each: how many of the best labels it wants instead of the scores, or 0.
    """
    there = [spec.name for spec in view.outputs]
    wanted: dict[str, int] = {}
    for index, output in enumerate(request.outputs):
        field = f"outputs[{index}]"
        if output.name not in there:
            raise InvalidRequest(
                f"{field}.name",
                f"there is no output {output.name[:64]!r}; there are {listed(there)}",
            )
        if "shared_memory_region" in output.parameters:
            raise InvalidRequest(f"{field}.parameters", "shared memory is not served")
        parameters = read_parameters(output.parameters)
        best = whole(parameters, "classification", f"{field}.parameters") or 0
        if best and not (isinstance(view, TensorView) and task is Task.CLASSIFICATION):
            raise InvalidRequest(
                f"{field}.parameters", "classification is for a classifier's scores alone"
            )
        wanted[output.name] = max(best, 0)
    return wanted or dict.fromkeys(there, 0)


def tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    """Return a tensor of one request, whose first dimension is its batch."""
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=(-1, *spec.shape)
    )


def model_config(name: str, model: ServedModel, view: View) -> pb.ModelConfig:
    """Return what one view of a model takes and gives, and how the model is run."""
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
    return config


def statistics(name: str, model: ServedModel, counted: Statistics) -> pb.ModelStatistics:
    """Return what became of a model's requests; counted: of their runs."""
    stages = model.stages
    images = sum(size * runs for size, runs in counted.batches.items())
    compute_input = _duration(stages.preprocess)
    compute_input.ns += _ns(stages.decode.sum_s)
    return pb.ModelStatistics(
        name=name,
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


def _data_type(spec: TensorSpec) -> str:
    return "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"


def _format(spec: TensorSpec) -> str:
    return "FORMAT_NCHW" if len(spec.shape) == 3 else "FORMAT_NONE"


def _ultralytics_metadata(model: ServedModel) -> dict[str, Any]:
    """Return what ultralytics writes into its own exports, and its client reads."""
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
