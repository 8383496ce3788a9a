"""Clients of one peer: a visavis server, or a server that speaks the Open Inference Protocol.

A peer is asked as a visavis server first. Where it does not have our service, it is asked by the
other protocol from then on.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Unpack

import grpc

from visavis import calls, connection, open_inference, reading, statuses
from visavis.async_client import AsyncClient
from visavis.card_reading import read_model
from visavis.cards import Model
from visavis.client import Client
from visavis.errors import (
    Cancelled,
    InvalidSettings,
    ModelNotFound,
    Unsupported,
    VisavisError,
)
from visavis.images import ImageSource
from visavis.inference_messages import SERVICE, message
from visavis.open_inference import OpenModel
from visavis.peer_answers import PEER_BYTES_MAX, require_usable
from visavis.results import Comparison
from visavis.target import Target
from visavis.v1 import vision_pb2 as pb

# gRPC takes no timeout of 0.
_LEAST_S: Final = 0.001


class PeerClient(Client):
    """A client of a peer: cards and comparisons, in either protocol.

    Raises ServerFailed for an answer that breaks a rule of `peer_answers`.
    """

    _most_bytes = PEER_BYTES_MAX

    def __init__(self, target: Target, timeout: float) -> None:
        super().__init__(target.address, timeout=timeout, tls=target.tls, token=target.token)
        self._is_open = False
        self._open_models: tuple[OpenModel, ...] | None = None

    def compare(
        self,
        image: ImageSource,
        *,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> Comparison:
        """Return the answers of all capable models for one image, side by side."""
        if not self._is_open:
            try:
                return super().compare(image, timeout=timeout, headers=headers, **options)
            except Unsupported:
                self._is_open = True
        asked = calls.compare_request(image, **options)
        models = open_inference.chosen(self._models(timeout, headers), asked)
        # All are sent before the first answer is awaited.
        started = [self._started(model, asked, timeout, headers) for model in models]
        answers = [
            _answer(model, asked, finish) for model, finish in zip(models, started, strict=True)
        ]
        return reading.comparison(open_inference.comparison(models, answers))

    def list_models(
        self, *, timeout: float | None = None, headers: connection.Headers | None = None
    ) -> tuple[Model, ...]:
        """Return the cards of all models, sorted by name."""
        if not self._is_open:
            try:
                return super().list_models(timeout=timeout, headers=headers)
            except Unsupported:
                self._is_open = True
        models = self._models(timeout, headers)
        return tuple(read_model(open_inference.card_in_list(one)) for one in models)

    def get_model(
        self,
        model: str,
        *,
        version: int | None = None,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
    ) -> Model:
        """Return one model's card, with its labels and its receipt."""
        if not self._is_open:
            try:
                return super().get_model(model, version=version, timeout=timeout, headers=headers)
            except Unsupported:
                self._is_open = True
        for one in self._models(timeout, headers):
            if one.card.name == model and version in (None, one.card.version):
                return read_model(one.card)
        raise ModelNotFound(f"no model {model!r} at {self._server.address}")

    def _call(
        self,
        method: str,
        request: object,
        timeout: float | None,
        headers: connection.Headers | None,
    ) -> Any:
        answer = super()._call(method, request, timeout, headers)
        require_usable(answer, request, self._server.address)
        return answer

    def _models(
        self, timeout: float | None, headers: connection.Headers | None
    ) -> tuple[OpenModel, ...]:
        """Return the models of the other protocol; asked for once, all within one timeout."""
        if self._open_models is None:
            address = self._server.address
            give_up_at = time.monotonic() + self._server.seconds(timeout)

            def ask(method: str, request: Any) -> Any:
                left = max(give_up_at - time.monotonic(), _LEAST_S)
                return self._start(method, request, left, headers)()

            with _of_either_protocol(address):
                index = ask("RepositoryIndex", open_inference.index_request())
                configs = open_inference.Configs(address)
                for name in open_inference.ready_models(index, address):
                    configs.add(ask("ModelConfig", _config_request(name)).config)
            self._open_models = configs.models()
        return self._open_models

    def _started(
        self,
        model: OpenModel,
        asked: pb.CompareRequest,
        timeout: float | None,
        headers: connection.Headers | None,
    ) -> Callable[[], Any]:
        """Send the request for a model's answer; return the function that waits for it."""
        try:
            request = open_inference.infer_request(model, asked)
        except VisavisError as error:
            return _raising(error)
        return self._start("ModelInfer", request, timeout, headers)

    def _start(
        self,
        method: str,
        request: Any,
        timeout: float | None,
        headers: connection.Headers | None,
    ) -> Callable[[], Any]:
        seconds = self._server.seconds(timeout)
        call: Any = self._channel.unary_unary(*_call_of(method))
        future = call.future(request, timeout=seconds, metadata=self._server.metadata(headers))

        def finish() -> Any:
            try:
                with statuses.translated(self._server.address, seconds):
                    return future.result()
            except grpc.FutureCancelledError as error:
                raise Cancelled("the client was closed during the call") from error

        return finish


class AsyncPeerClient(AsyncClient):
    """An asynchronous client of a peer: comparisons, in either protocol.

    Raises ServerFailed for an answer that breaks a rule of `peer_answers`.
    """

    _most_bytes = PEER_BYTES_MAX

    def __init__(self, target: Target, timeout: float) -> None:
        super().__init__(target.address, timeout=timeout, tls=target.tls, token=target.token)
        self._is_open = False
        self._open_models: tuple[OpenModel, ...] | None = None
        self._listing = asyncio.Lock()

    async def compare(
        self,
        image: ImageSource,
        *,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> Comparison:
        """Return the answers of all capable models for one image, side by side."""
        if not self._is_open:
            try:
                return await super().compare(image, timeout=timeout, headers=headers, **options)
            except Unsupported:
                self._is_open = True
        asked = await asyncio.to_thread(calls.compare_request, image, **options)
        models = open_inference.chosen(await self._models(timeout, headers), asked)

        async def ask(model: OpenModel) -> Any:
            try:
                request = open_inference.infer_request(model, asked)
                response = await self._ask("ModelInfer", request, timeout, headers)
                return open_inference.answer(model, response, asked)
            except VisavisError as error:
                return open_inference.failed(model, error)

        answers = await asyncio.gather(*map(ask, models))
        return reading.comparison(open_inference.comparison(models, answers))

    async def _call(
        self,
        method: str,
        request: object,
        timeout: float | None,
        headers: connection.Headers | None,
    ) -> Any:
        answer = await super()._call(method, request, timeout, headers)
        require_usable(answer, request, self._server.address)
        return answer

    async def _models(
        self, timeout: float | None, headers: connection.Headers | None
    ) -> tuple[OpenModel, ...]:
        async with self._listing:
            if self._open_models is None:
                address = self._server.address
                give_up_at = time.monotonic() + self._server.seconds(timeout)

                async def ask(method: str, request: Any) -> Any:
                    left = max(give_up_at - time.monotonic(), _LEAST_S)
                    return await self._ask(method, request, left, headers)

                with _of_either_protocol(address):
                    index = await ask("RepositoryIndex", open_inference.index_request())
                    configs = open_inference.Configs(address)
                    for name in open_inference.ready_models(index, address):
                        configs.add((await ask("ModelConfig", _config_request(name))).config)
                self._open_models = configs.models()
        return self._open_models

    async def _ask(
        self,
        method: str,
        request: Any,
        timeout: float | None,
        headers: connection.Headers | None,
    ) -> Any:
        seconds = self._server.seconds(timeout)
        call = self._stubs().channel.unary_unary(*_call_of(method))
        with statuses.translated(self._server.address, seconds):
            return await call(request, timeout=seconds, metadata=self._server.metadata(headers))


def _answer(model: OpenModel, asked: pb.CompareRequest, finish: Callable[[], Any]) -> Any:
    try:
        return open_inference.answer(model, finish(), asked)
    except VisavisError as error:
        return open_inference.failed(model, error)


def _raising(error: VisavisError) -> Callable[[], Any]:
    def finish() -> Any:
        raise error

    return finish


def _config_request(name: str) -> Any:
    return message("ModelConfigRequest")(name=name)


def _call_of(method: str) -> tuple[str, Callable[[Any], bytes], Callable[[bytes], Any]]:
    """Return a method's path, and how its messages are written and read."""
    return (
        f"/{SERVICE}/{method}",
        lambda request: request.SerializeToString(),
        message(f"{method}Response").FromString,
    )


@contextmanager
def _of_either_protocol(address: str) -> Iterator[None]:
    """Say of a server that lacks both protocols what it would need."""
    try:
        yield
    except Unsupported as error:
        raise InvalidSettings(
            f"the server at {address} can't be compared: it has neither visavis' service nor "
            "RepositoryIndex and ModelConfig of the Open Inference Protocol"
        ) from error
