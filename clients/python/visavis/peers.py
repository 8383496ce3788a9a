"""Clients that compare the models of several servers: one main server and its peers.

A peer's model is called MODEL@PEER. A peer's error is the status of its models, never an error of
the comparison.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Unpack

from visavis import calls, connection, merging, reading
from visavis.async_client import AsyncClient
from visavis.card_reading import read_model
from visavis.cards import Model
from visavis.client import Client
from visavis.errors import InvalidSettings, VisavisError
from visavis.images import ImageSource, image_message
from visavis.merging import MAIN, Asked, Outcome, asked_of, qualified
from visavis.peer_clients import AsyncPeerClient, PeerClient
from visavis.results import Comparison
from visavis.target import SYNTAX, Target, parse_target
from visavis.v1 import vision_pb2 as pb

_SYNTAX: Final = f"NAME={SYNTAX}"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Peer:
    """Another server whose models are compared. name: what follows the @ in their names."""

    name: str
    target: Target


def parse_peer(text: str) -> Peer:
    """Return the peer that a text names: NAME=, then a server as in `parse_target`.

    Raises InvalidSettings.
    """
    name, equals, server = text.partition("=")
    if not (equals and _NAME.fullmatch(name) and server and not server.startswith(",")):
        raise InvalidSettings(f"--peer {text!r} is not {_SYNTAX}")
    return Peer(name, parse_target(server, f"--peer {name}", _SYNTAX))


def parse_peers(texts: Sequence[str]) -> tuple[Peer, ...]:
    """Return several peers. Raises InvalidSettings, also for a name that is given twice."""
    peers = tuple(map(parse_peer, texts))
    names = [peer.name for peer in peers]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidSettings(f"--peer {min(twice)} is given twice; give each server its own name")
    return peers


class PeeredClient(Client):
    """A client of one server whose comparisons and cards include the models of its peers.

    `classify`, `detect` and `compare_stream` go to the main server.
    """

    def __init__(
        self,
        address: str,
        peers: Sequence[Peer],
        *,
        timeout: float = connection.DEFAULT_TIMEOUT_S,
        tls: connection.TLS | None = None,
        token: str | None = None,
    ) -> None:
        super().__init__(address, timeout=timeout, tls=tls, token=token)
        self._peers: dict[str, Client] = {
            peer.name: PeerClient(peer.target, timeout) for peer in peers
        }
        self._cards: dict[str, Sequence[pb.Model]] = {}
        self._label_sets: dict[tuple[str, str, int], pb.LabelSet] = {}
        # Calls of several pictures wait for their peers at once.
        self._pool = ThreadPoolExecutor(8 * len(peers) + 1)

    def close(self) -> None:
        """Close the connections to all servers."""
        for peer in self._peers.values():
            peer.close()
        super().close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def compare(
        self,
        image: ImageSource,
        *,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> Comparison:
        """Return the answers of all capable models of all servers, side by side.

        Options are those of `Client.compare`; models and baseline may be MODEL@PEER. No picture
        is annotated.
        """
        asked = _asked(options)
        options["top_k"], options["baseline"] = merging.ALL_LABELS, None
        options.pop("annotate", None)
        picture = image_message(image, options.pop("channels", "RGB"))  # An open file is read once.

        def ask(name: str, names: list[str]) -> Outcome:
            mine: calls.CompareOptions = {**options, "models": names}
            peer = self._peers.get(name)
            compare = super(PeeredClient, self).compare if peer is None else peer.compare
            try:
                found = compare(picture, timeout=timeout, headers=headers, **mine)
            except InvalidSettings:
                raise
            except VisavisError as error:
                return Outcome(error, self._known(name))
            return Outcome(found.message)

        futures = {
            name: self._pool.submit(ask, name, names)
            for name in (MAIN, *self._peers)
            if (names := asked_of(name, asked.models)) is not None
        }
        outcomes = {name: future.result() for name, future in futures.items()}
        _require_main(outcomes)
        return reading.comparison(merging.merged(outcomes, asked, self._sets(outcomes)))

    def list_models(
        self, *, timeout: float | None = None, headers: connection.Headers | None = None
    ) -> tuple[Model, ...]:
        """Return the cards of all models of all servers."""
        found = list(super().list_models(timeout=timeout, headers=headers))
        for name, client in self._peers.items():
            with _naming(name):
                found += [
                    _renamed(card, name)
                    for card in client.list_models(timeout=timeout, headers=headers)
                ]
        return tuple(found)

    def get_model(
        self,
        model: str,
        *,
        version: int | None = None,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
    ) -> Model:
        """Return one model's card; model: may be MODEL@PEER."""
        own, _, name = model.rpartition("@")
        if name not in self._peers:
            return super().get_model(model, version=version, timeout=timeout, headers=headers)
        with _naming(name):
            card = self._peers[name].get_model(
                own, version=version, timeout=timeout, headers=headers
            )
        return _renamed(card, name)

    def _sets(self, outcomes: Mapping[str, Outcome]) -> dict[str, pb.LabelSet]:
        """Return the label sets, with labels, of the models that answered, by MODEL@PEER."""
        return {
            qualified(card.name, server): found
            for server, one in outcomes.items()
            if isinstance(one.answer, pb.CompareResponse)
            for card in one.answer.models
            if (found := self._label_set(server, card)) is not None
        }

    def _label_set(self, server: str, card: pb.Model) -> pb.LabelSet | None:
        """Return a model's labels, asked for once; None if its server does not tell them."""
        key = (server, card.name, card.version)
        if key not in self._label_sets:
            peer = self._peers.get(server)
            get = super().get_model if peer is None else peer.get_model
            try:
                self._label_sets[key] = get(card.name, version=card.version).message.label_set
            except VisavisError:
                return None
        return self._label_sets[key]

    def _known(self, name: str) -> Sequence[pb.Model]:
        """Return a server's cards as far as they are known; asked for once."""
        if name not in self._cards:
            peer = self._peers.get(name)
            list_models = super().list_models if peer is None else peer.list_models
            try:
                found = list_models()
            except InvalidSettings:
                raise  # No later call could be better.
            except VisavisError:
                return ()
            self._cards[name] = [card.message for card in found]
        return self._cards[name]

    def learn(self) -> None:
        """Ask every peer for its cards: so that its models have a status if it fails later."""
        for name in self._peers:
            self._known(name)


def client_of(server: str, peers: Sequence[Peer], timeout: float) -> Client:
    """Return a client of a server, named as in `parse_target`, and of its peers if there are any.

    Raises InvalidSettings.
    """
    target = parse_target(server)
    if not peers:
        return target.client(timeout)
    return PeeredClient(target.address, peers, timeout=timeout, tls=target.tls, token=target.token)


class AsyncPeeredClient(AsyncClient):
    """An asynchronous client whose comparisons include the models of its peers.

    It computes no agreements, and passes the options on as they are. peers: their cards, so that
    their models have a status if they fail.
    """

    def __init__(
        self,
        address: str,
        peers: Sequence[Peer],
        cards: Sequence[Model],
        *,
        timeout: float = connection.DEFAULT_TIMEOUT_S,
        tls: connection.TLS | None = None,
        token: str | None = None,
    ) -> None:
        super().__init__(address, timeout=timeout, tls=tls, token=token)
        self._peers = {peer.name: AsyncPeerClient(peer.target, timeout) for peer in peers}
        self._cards = {
            peer.name: [_own(card) for card in cards if card.name.endswith(f"@{peer.name}")]
            for peer in peers
        }

    async def close(self) -> None:
        """Close the connections to all servers."""
        await asyncio.gather(*(peer.close() for peer in self._peers.values()))
        await super().close()

    async def compare(
        self,
        image: ImageSource,
        *,
        timeout: float | None = None,
        headers: connection.Headers | None = None,
        **options: Unpack[calls.CompareOptions],
    ) -> Comparison:
        """Return the answers of all models of all servers, without agreements."""
        asked = _asked(options)
        options["baseline"] = None

        async def ask(name: str, call: Callable[..., Awaitable[Comparison]]) -> Outcome:
            mine = {**options, "models": asked_of(name, asked.models)}
            try:
                return Outcome(
                    (await call(image, timeout=timeout, headers=headers, **mine)).message
                )
            except InvalidSettings:
                raise
            except VisavisError as error:
                return Outcome(error, self._cards.get(name, ()))

        called: dict[str, Callable[..., Awaitable[Comparison]]] = {MAIN: super().compare}
        called |= {name: client.compare for name, client in self._peers.items()}
        names = [name for name in called if asked_of(name, asked.models) is not None]
        found = await asyncio.gather(*(ask(name, called[name]) for name in names))
        outcomes = dict(zip(names, found, strict=True))
        _require_main(outcomes)
        return reading.comparison(merging.merged(outcomes, asked))


def _asked(options: calls.CompareOptions) -> Asked:
    """Return what a comparison asks for. Raises InvalidRequest."""
    return Asked(
        models=list(options.get("models", ())),
        tasks=calls.task_values(options.get("tasks", ())),
        baseline=options.get("baseline"),
        top_k=options.get("top_k"),
    )


def _require_main(outcomes: Mapping[str, Outcome]) -> None:
    """Raise the main server's error: without it, or for a bad picture, nothing is compared."""
    main = outcomes.get(MAIN)
    if main is not None and isinstance(main.answer, VisavisError):
        raise main.answer


@contextmanager
def _naming(peer: str) -> Iterator[None]:
    """Name the peer in an error's message."""
    try:
        yield
    except VisavisError as error:
        error.message = f"peer {peer}: {error.message}"
        raise


def _renamed(card: Model, peer: str) -> Model:
    return read_model(merging.renamed(card.message, peer))


def _own(card: Model) -> pb.Model:
    """Return a peer's card under the name that it has there."""
    copy = pb.Model()
    copy.CopyFrom(card.message)
    copy.name = card.name.rpartition("@")[0]
    return copy
