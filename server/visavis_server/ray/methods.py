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

LIST: Final = f"/{HEALTH.full_name}/List"
WATCH: Final = f"/{HEALTH.full_name}/Watch"

_DEPLOY: Final = "models are not loaded by clients on Ray Serve; deploy the application again"

UNSUPPORTED: Final = {
    "RepositoryModelLoad": _DEPLOY,
    "RepositoryModelUnload": _DEPLOY,
}
"""Methods that are implemented elsewhere, with what to do instead."""

# The gate answers it, by what the ingress lists.
_LEFT_OUT: Final = ("Watch",)


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service.

    streams: its responses are a stream. each: its requests are a stream, and each has one response;
    proxies send each of them to the ingress as a call of its own.
    """

    service: str
    name: str
    request_class: Any
    streams: bool
    each: bool

    @property
    def path(self) -> str:
        """The path of its calls."""
        return f"/{self.service}/{self.name}"


def methods_of(service: ServiceDescriptor) -> Iterator[Method]:
    """Yield the methods of a service that the ingress answers."""
    for method in service.methods:
        if method.name not in _LEFT_OUT:
            yield Method(
                service.full_name,
                method.name,
                message_factory.GetMessageClass(method.input_type),
                method.server_streaming and not method.client_streaming,
                method.client_streaming,
            )
