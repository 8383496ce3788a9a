"""Messages of Connect calls, in JSON and binary, parsed within limits."""

import asyncio
import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from visavis_server.errors import InvalidRequest
from visavis_server.settings import MessageLimits
from visavis_server.transport import json_message
from visavis_server.transport.wire import require_few_fields

# Larger JSON is read and written in a thread: protobuf's JSON is plain Python, about 3 µs a field.
SMALL_BYTES: Final = 4 << 10

# json_format's errors quote the whole value.
_LONGEST_REASON: Final = 512

# Messages of protobuf and Python, and plainer ones for clients.
_PHRASES: Final = (
    (r"Failed to load JSON: ", "it is not JSON: "),
    (
        r'Message type "(?:\w+\.)*(\w+)" has no field named "(.*?)"(?: at "[^"]*")?\.?\s*'
        r"Available Fields\(except extensions\): \"\[(.*?)\]\"",
        r"\1 has no field '\2'; it has \3",
    ),
    (r"Failed to parse (\w+) field: ", r"\1: "),
    (r"invalid literal for int\(\) with base 10: ('.*?')", r"\1 is not an integer"),
    (r"Couldn't parse float: ", "not a number: "),
    (r"Couldn't parse (\w+): ", r"not an \1: "),
    (r"expected string or bytes-like object, got '(\w+)'", r"it must be a string, not \1"),
)


class Codec(Protocol):
    """A format of messages."""

    async def written(self, message: Message) -> "Written":
        """Return a message in this format."""
        ...


@dataclass(frozen=True, slots=True)
class Unread:
    """A request before it is parsed, so that its errors become errors of the call."""

    read: Callable[[], Message]
    codec: Codec
    takes_long: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """A message in its format."""

    data: bytes


@dataclass(slots=True)
class Apart:
    """The large message of a request, kept apart from connectrpc; mark: its placeholder there."""

    mark: bytes = b""
    message: bytes | memoryview = b""


apart: ContextVar[Apart] = ContextVar("apart")


class Json:
    """Protobuf's JSON. Writes zero values; rejects unknown fields."""

    def __init__(self, limits: MessageLimits) -> None:
        self._limits = limits

    def name(self) -> str:
        """Return the format's name; connectrpc calls this."""
        return "json"

    def encode(self, message: Written) -> bytes:
        """Return a written message; connectrpc calls this."""
        return message.data

    def decode(self, data: bytes | bytearray, message_class: type[Message]) -> Unread:
        """Return a message to be parsed later; connectrpc calls this."""
        data = _whole(data)
        read = partial(json_message.read, data, message_class, self._limits)
        return Unread(read, self, takes_long=len(data) > SMALL_BYTES)

    async def written(self, message: Message) -> Written:
        """Return a message in this format."""
        if message.ByteSize() > SMALL_BYTES:
            return Written(await asyncio.to_thread(json_message.write, message))
        return Written(json_message.write(message))


class Binary:
    """Protobuf's binary format."""

    def __init__(self, limits: MessageLimits) -> None:
        self._limits = limits

    def name(self) -> str:
        """Return the format's name; connectrpc calls this."""
        return "proto"

    def encode(self, message: Written) -> bytes:
        """Return a written message; connectrpc calls this."""
        return message.data

    def decode(self, data: bytes | bytearray, message_class: type[Message]) -> Unread:
        """Return a message to be parsed later; connectrpc calls this."""
        data = _whole(data)

        def read() -> Message:
            require_few_fields(data, message_class, self._limits)
            return message_class.FromString(data)

        return Unread(read, self)

    async def written(self, message: Message) -> Written:
        """Return a message in this format."""
        return Written(message.SerializeToString())


def _whole(data: bytes | bytearray) -> bytes:
    """Return a message, or the one that was kept apart if the data is its mark."""
    kept = apart.get()
    if not (kept.mark and data == kept.mark):
        return bytes(data)
    message, kept.message = kept.message, b""  # not kept until the call ends
    return bytes(message)


async def read(request: Unread) -> Message:
    """Return a request parsed, in a thread if that takes long. Raises InvalidRequest."""
    try:
        return await asyncio.to_thread(request.read) if request.takes_long else request.read()
    except (DecodeError, json_format.ParseError, ValueError, RecursionError) as error:
        why = " ".join(str(error)[:_LONGEST_REASON].split())
        for pattern, phrase in _PHRASES:
            why = re.sub(pattern, phrase, why)
        raise InvalidRequest(
            "request", f"the request is not a message of the method's request type: {why}"
        ) from None
