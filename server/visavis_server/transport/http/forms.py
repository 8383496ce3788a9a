"""Our RPCs as forms: multipart/form-data with a picture and other fields, answered in JSON."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from multipart import MultipartError, MultipartSegment, PushMultipartParser
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from visavis_server.errors import InvalidRequest, listed
from visavis_server.settings import MessageLimits
from visavis_server.transport.calls import Calls
from visavis_server.transport.http.guards import kind_of
from visavis_server.transport.http.message_codecs import SMALL_BYTES, Json, Unread, read
from visavis_server.transport.http.rejections import rejection, values_of
from visavis_server.transport.http.unary import HeaderContext, respond

FORM: Final = "multipart/form-data"

# RFC 2046: up to 70 characters of these.
_BOUNDARY: Final = re.compile(
    r';\s{0,8}boundary=(?:"([\w\'()+,./:=? -]{1,70})"|([\w\'+./-]{1,70}))', re.ASCII | re.IGNORECASE
)
_MAX_HEADERS, _MAX_HEADER_BYTES = 8, 1024
# Parsed at a time, in less than a millisecond.
_PIECE_BYTES: Final = 256 << 10
_LONGEST_NUMBER: Final = 64
_TRUTHS: Final = {"true": True, "1": True, "false": False, "0": False}
_IMAGE: Final = "image"


class Forms:
    """Answers forms; passes other requests on to `app`.

    service: has a method for each RPC. limits: of the fields of a form.
    """

    def __init__(
        self,
        app: ASGIApp,
        descriptor: ServiceDescriptor,
        service: object,
        calls: Calls,
        limits: MessageLimits,
    ) -> None:
        self._app = app
        self._prefix = f"/{descriptor.full_name}/"
        self._methods = {m.name: m for m in descriptor.methods if not m.server_streaming}
        self._service = service
        self._calls = calls
        self._limits = limits
        self._json = Json(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request whose body is one ASGI message; ASGI calls this."""
        method = self._methods.get(scope["path"].removeprefix(self._prefix))
        if method is None or scope["method"] != "POST" or not kind_of(scope).startswith(FORM):
            await self._app(scope, receive, send)
            return
        body: bytes = (await receive())["body"]
        kind = "".join(values_of(scope["headers"], "content-type"))
        answer = partial(self._answer, method, kind, [body])
        del body
        path = self._prefix + method.name
        await respond(self._calls, path, rejection, answer, scope, receive, send)

    async def _answer(
        self, method: MethodDescriptor, kind: str, body: list[bytes], context: HeaderContext
    ) -> Response:
        """Return the response to a form; empties `body`, which nothing else then keeps."""
        message_class = message_factory.GetMessageClass(method.input_type)
        whole = body.pop()
        parse = partial(_message, whole, kind, message_class(), self._limits)
        unread = Unread(parse, self._json, takes_long=len(whole) > SMALL_BYTES)
        del whole, parse
        request = await read(unread)
        del unread
        response = await getattr(self._service, method.name)(request, context)
        written = await self._json.written(response)
        return Response(written.data, media_type="application/json")


def _message(body: bytes, kind: str, message: Message, limits: MessageLimits) -> Message:
    """Return the message in a form; run it in a thread, as its cost grows with the body.

    Raises InvalidRequest, and json_format's errors.
    """
    fields = {f.json_name: f for f in message.DESCRIPTOR.fields}
    fields |= {f.name: f for f in message.DESCRIPTOR.fields}
    given: dict[str, Any] = {}
    picture: bytes | None = None
    text_bytes = 0
    for part, contents in _parts(body, kind, limits):
        field = fields.get(part.name)
        if field is None:
            raise InvalidRequest(
                part.name[:64],
                f"the form has a field {part.name[:64]!r}; it takes "
                f"{listed({f.json_name for f in fields.values()})}",
            )
        name = field.json_name
        if (name in given and not field.is_repeated) or (name == _IMAGE and picture is not None):
            raise InvalidRequest(name, f"the form has the field {name} more than once")
        if name == _IMAGE:
            picture = _picture(part, contents)
            continue
        text_bytes += len(contents)
        if text_bytes > limits.text_bytes:
            raise InvalidRequest(
                name, f"the form's fields have more than {limits.text_bytes} bytes of text"
            )
        value = _value(field, contents)
        if field.is_repeated:
            given.setdefault(name, []).append(value)
        else:
            given[name] = value
    json_format.ParseDict(given, message)
    if picture is not None:
        message.image.encoded = picture  # type: ignore[attr-defined]
    return message


def _parts(
    body: bytes, kind: str, limits: MessageLimits
) -> Iterator[tuple[MultipartSegment, bytes]]:
    """Yield the parts of a form with their contents. Raises InvalidRequest."""
    boundary = _BOUNDARY.search(kind)
    if boundary is None:
        raise InvalidRequest(
            "request",
            "the content-type of the form has no boundary; let the client set the header, as "
            "curl -F does",
        )
    parser = PushMultipartParser(
        boundary[1] or boundary[2],
        content_length=len(body),
        max_header_count=_MAX_HEADERS,
        max_header_size=_MAX_HEADER_BYTES,
        max_segment_count=limits.fields,
        strict=True,
    )
    part, pieces = None, list[bytearray]()
    try:
        with parser:
            for start in range(0, len(body), _PIECE_BYTES):
                for event in parser.parse(body[start : start + _PIECE_BYTES]):
                    if isinstance(event, MultipartSegment):
                        part, pieces = event, []
                    elif event:
                        pieces.append(event)
                    else:
                        assert part is not None
                        yield part, b"".join(pieces)
    except MultipartError as error:
        raise InvalidRequest("request", f"the form is malformed: {str(error)[:256]}") from None


def _picture(part: MultipartSegment, contents: bytes) -> bytes:
    if part.filename is None and contents.isascii():
        raise InvalidRequest(
            part.name,
            f"the form's {part.name} is text, not a file; with curl, write -F {part.name}=@FILE",
        )
    return contents


def _value(field: Any, contents: bytes) -> object:
    """Return the text of a field, or its boolean; protobuf reads numbers and enums from text."""
    text = contents.decode()
    if field.type == FieldDescriptor.TYPE_STRING:
        return text
    if field.message_type is not None:  # Explain, by its label; empty: the best one
        return {"label": text} if text else {}
    if len(text) > _LONGEST_NUMBER:
        raise InvalidRequest(
            field.json_name, f"{field.json_name} is {text[:_LONGEST_NUMBER]!r}…, which is too long"
        )
    if field.type != FieldDescriptor.TYPE_BOOL:
        return text
    if text.lower() not in _TRUTHS:
        raise InvalidRequest(
            field.json_name, f"{field.json_name} is {text[:64]!r}; it must be true or false"
        )
    return _TRUTHS[text.lower()]
