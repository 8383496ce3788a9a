"""What the Open Inference Protocol's tensor view costs: CPU beside ONNX Runtime by itself."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import numpy as np
from visavis.bench.process import Watched

from visavis_server.api.inference import grpc_service_pb2 as pb

from .site import DETECT, ROOT, NotRun, Site
from .targets import Measurement, Result, at_most

_CALLS = 20
_METHOD = "/inference.GRPCInferenceService/ModelInfer"


def _tensor_view(site: Site) -> Sequence[Result]:
    """Measure in turns: the server, a server that only receives and sends as much, and no server.

    All have one thread for a run.
    """
    (name,) = DETECT
    if name not in site.whole_heads:
        raise NotRun("the whole graph is needed: reference/yolov5n.onnx beside the weights")
    image = np.random.default_rng(0).random((1, 3, 640, 640), np.float32)
    plain = _plain(site.whole_heads[name], image)
    ratios, parts = [], []
    with site.server(site.fp32, "--cores", "1") as (server, watched, _):
        request = _request(server.address, name, image)
        call = _caller(server.address)
        size = len(call(request))
        with _echo(size) as echo:
            echoed, carried = Watched(echo.pid), _caller(_address(echo))
            for number in range(max(3, site.rounds)):
                site.tell(f"tensor view, round {number + 1}")
                served_ms = _cpu_ms(lambda: call(request), watched)
                message_ms = _cpu_ms(lambda: carried(request), echoed)
                plain_ms = plain()
                ratios.append((served_ms - message_ms) / plain_ms)
                parts.append((served_ms, message_ms, plain_ms))
            echo.kill()
            echo.communicate()
    ratio = statistics.median(ratios)
    served_ms, message_ms, plain_ms = (statistics.median(part) for part in zip(*parts, strict=True))
    return [
        Result(
            ratio,
            f"**{ratio:.2f}** (CPU {served_ms:.1f} ms, of this {message_ms:.1f} to receive and "
            f"send the tensors; in-process {plain_ms:.1f})",
        )
    ]


def _plain(graph: Path, image: np.ndarray) -> Callable[[], float]:
    """Return what measures the CPU of a run without a server, in ms."""
    # Switches off ONNX Runtime's telemetry, which it would start when it is imported.
    import visavis_server.runtime.providers  # noqa: F401, I001
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: image}
    outputs = [session.get_outputs()[0].name]
    session.run(outputs, inputs)

    def measure() -> float:
        began = time.process_time()
        for _ in range(_CALLS):
            session.run(outputs, inputs)
        return (time.process_time() - began) / _CALLS * 1e3

    return measure


def _request(address: str, name: str, image: np.ndarray) -> bytes:
    with grpc.insecure_channel(address) as channel:
        method = "/inference.GRPCInferenceService/ModelMetadata"
        about = channel.unary_unary(
            method,
            pb.ModelMetadataRequest.SerializeToString,
            pb.ModelMetadataResponse.FromString,
        )(pb.ModelMetadataRequest(name=name))
    request = pb.ModelInferRequest(model_name=name, raw_input_contents=[image.tobytes()])
    request.inputs.add(name=about.inputs[0].name, datatype="FP32", shape=image.shape)
    return request.SerializeToString()


def _caller(address: str) -> Callable[[bytes], bytes]:
    options = [("grpc.max_receive_message_length", -1)]
    return grpc.insecure_channel(address, options).unary_unary(_METHOD, None, None)


def _echo(size: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.benchmark.echo", str(size)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _address(echo: "subprocess.Popen[str]") -> str:
    assert echo.stdout
    return echo.stdout.readline().strip()


def _cpu_ms(call: Callable[[], object], watched: Watched) -> float:
    """Return the CPU that a process takes for a call."""
    call()
    before = watched.cpu_s() or 0.0
    for _ in range(_CALLS):
        call()
    return ((watched.cpu_s() or 0.0) - before) / _CALLS * 1e3


MEASUREMENTS = (
    Measurement(
        "tensor-view",
        (
            at_most(
                "Open Inference Protocol's tensor view of YOLOv5n, against plain ONNX Runtime on "
                "the whole graph, in-process",
                1.15,
            ),
        ),
        _tensor_view,
    ),
)
