"""The methods of the server's services, for the proxies and the ingress. Imports little."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from visavis.v1 import vision_pb2

from visavis_server.api.inference import grpc_service_pb2

TIMEOUT: Final = "visavis-timeout-s"
"""The header in which a proxy gives an ingress the time that a call has left."""

DETAILS: Final = "grpc-status-details-bin"
"""The trailing metadata with google.rpc.Status."""

VISION: Final = vision_pb2.DESCRIPTOR.services_by_name["VisionService"]
INFERENCE: Final = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"]

_METRICS_SAY: Final = "statistics are not supported on Ray Serve; see the metrics of Ray"
_DEPLOY: Final = "models are not loaded by clients on Ray Serve; deploy the application again"

UNSUPPORTED: Final = {
    "ModelStatistics": _METRICS_SAY,
    "RepositoryModelLoad": _DEPLOY,
    "RepositoryModelUnload": _DEPLOY,
}
"""Methods that are implemented elsewhere, with what to do instead."""

# Clients take a server without Watch to be healthy.
_LEFT_OUT: Final = ("Watch", "List", "ModelStreamInfer")


@dataclass(frozen=True, slots=True)
class Method:
    """One method; streams: its responses are a stream."""

    service: str
    name: str
    request_class: Any
    streams: bool

    @property
    def path(self) -> str:
        """The path of its calls."""
        return f"/{self.service}/{self.name}"


def methods_of(service: ServiceDescriptor) -> Iterator[Method]:
    """Yield the methods of a service that are served."""
    for method in service.methods:
        if method.name not in _LEFT_OUT:
            yield Method(
                service.full_name,
                method.name,
                message_factory.GetMessageClass(method.input_type),
                method.server_streaming,
            )
