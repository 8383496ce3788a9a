"""A server with canned answers, over a real channel."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from visavis.v1 import vision_pb2 as pb
from visavis.v1 import vision_pb2_grpc

from . import canned

Answer = Callable[[Any, grpc.ServicerContext], Any]


@dataclass
class FakeServer(vision_pb2_grpc.VisionServiceServicer, health_pb2_grpc.HealthServicer):
    """A server. answers: functions that replace the canned answers, by RPC name."""

    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[Any] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    metadata: dict[str, str] = field(default_factory=dict)
    address: str = ""

    def _answer(self, rpc: str, request: Any, context: grpc.ServicerContext, default: Any) -> Any:
        self.calls[rpc] += 1
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        answer = self.answers.get(rpc)
        return answer(request, context) if answer else default

    def Classify(self, request: Any, context: Any) -> Any:
        return self._answer("Classify", request, context, completed(canned.CLASSIFIED, request))

    def Detect(self, request: Any, context: Any) -> Any:
        return self._answer("Detect", request, context, completed(canned.DETECTED, request))

    def Compare(self, request: Any, context: Any) -> Any:
        return self._answer("Compare", request, context, completed(canned.comparison(), request))

    def CompareStream(self, request: Any, context: Any) -> Iterator[Any]:
        yield from self._answer("CompareStream", request, context, streamed(request))

    def ListModels(self, request: Any, context: Any) -> Any:
        return self._answer("ListModels", request, context, canned.LISTED)

    def GetModel(self, request: Any, context: Any) -> Any:
        card = pb.Model()
        card.CopyFrom(next(card for card in canned.CARDS if card.name == request.model))
        card.receipt.CopyFrom(canned.RECEIPT)
        return self._answer("GetModel", request, context, pb.GetModelResponse(model=card))

    def Check(self, request: Any, context: Any) -> Any:
        serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
        return self._answer("Check", request, context, serving)


def started(fake: FakeServer, address: str = "127.0.0.1:0") -> grpc.Server:
    """Start a server and return it; the fake holds its address."""
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 96 * 1024 * 1024)]
    server = grpc.server(futures.ThreadPoolExecutor(8), options=options)
    vision_pb2_grpc.add_VisionServiceServicer_to_server(fake, server)
    health_pb2_grpc.add_HealthServicer_to_server(fake, server)
    port = server.add_insecure_port(address)
    fake.address = address if address.startswith("unix:") else f"127.0.0.1:{port}"
    server.start()
    return server


def refusal(code: int, message: str, *details: Message) -> Answer:
    """Return an answer that fails with a status and its google.rpc details."""
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        status.details.add().Pack(detail)

    def refuse(request: Any, context: grpc.ServicerContext) -> Any:
        context.abort_with_status(rpc_status.to_status(status))

    return refuse


def bad_field(name: str, description: str) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(field=name, description=description)
    return error_details_pb2.BadRequest(field_violations=[violation])


def completed(response: Any, request: Any) -> Any:
    """Return a response with the picture and the heat maps that the request asks for."""
    answer = type(response)()
    answer.CopyFrom(response)
    if request.annotate or getattr(request, "annotate_difference", False):
        answer.annotated_image.CopyFrom(canned.PICTURE)
    if request.HasField("explain"):
        for explained in _explained(answer):
            explained.heat_map.CopyFrom(canned.heat_map(request.explain))
    return answer


def _explained(response: Any) -> list[Any]:
    """Return the parts of a response that have heat maps."""
    if not isinstance(response, pb.CompareResponse):
        return [response]
    answers = [answer for of in response.comparisons for answer in of.answers]
    return [answer for answer in answers if answer.status.code == 0]


def streamed(request: Any) -> Iterator[pb.CompareStreamResponse]:
    summary = completed(canned.comparison(), request)
    for task in summary.comparisons:
        for answer in task.answers:
            alone = pb.ModelAnswer()
            alone.CopyFrom(answer)
            alone.ClearField("agreement")
            yield pb.CompareStreamResponse(answer=pb.StreamedAnswer(task=task.task, answer=alone))
    yield pb.CompareStreamResponse(summary=summary)
