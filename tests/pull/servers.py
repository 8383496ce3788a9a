"""HTTP servers on 127.0.0.1 that count what they send, and cut or stall it."""

import hashlib
import json
import re
import socket
import sys
import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_PIECE = 64 << 10


@dataclass(frozen=True)
class Asked:
    """A request: range is that of its header, (first, last), or None."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def range(self) -> tuple[int, int | None] | None:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        return (int(found[1]), int(found[2]) if found[2] else None) if found else None


@dataclass(frozen=True)
class Answer:
    """contents: True if the body is a model's, which may be cut; a range of it may be asked for."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    contents: bool = False


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class LocalServer:
    """Runs a server for as long as the context lasts.

    requests: all of them. sent: bytes of models. cuts: for each of the next responses with a model,
    after how many bytes the connection is closed. stalls: if set, each further response with a
    model stops there until `go_on` is set. resumes: whether ranges are understood. down: the status
    of every answer, if not 0.
    """

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.sent = 0
        self.cuts: list[int] = []
        self.stalls: int | None = None
        self.go_on = threading.Event()
        self.resumes = True
        self.down = 0
        outer = self

        class Handler(_Handler):
            owner = outer

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, asked: Asked) -> Answer:
        raise NotImplementedError

    def forget(self) -> None:
        """Count from here on."""
        self.requests.clear()
        self.sent = 0

    def downloads(self) -> list[Asked]:
        """The requests for contents of models."""
        raise NotImplementedError


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise a body waits 40 ms for the acknowledgement of its headers.
    disable_nagle_algorithm = True
    owner: LocalServer

    def log_message(self, *args: Any) -> None:
        pass

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.title(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, self.rfile.read(length))
        self.owner.requests.append(asked)
        answer = Answer(self.owner.down) if self.owner.down else self.owner.answer(asked)
        body, status, more = answer.body, answer.status, dict(answer.headers)
        if answer.contents and self.owner.resumes:
            more["Accept-Ranges"] = "bytes"
            if asked.range and asked.method == "GET":
                first, last = asked.range
                last = min(len(body) - 1, len(body) if last is None else last)
                more["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
                body, status = body[first : last + 1], 206
        self.send_response(status)
        for name, value in more.items():
            self.send_header(name, value)
        self.send_header("Content-Length", more.get("Content-Length", str(len(body))))
        self.end_headers()
        if self.command != "HEAD":
            self._send(body, is_model=answer.contents)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _handle  # noqa: N815  the base's names

    def _send(self, body: bytes, *, is_model: bool) -> None:
        cut = self.owner.cuts.pop(0) if is_model and self.owner.cuts else None
        for start in range(0, len(body), _PIECE):
            piece = body[start : start + _PIECE]
            if cut is not None and start + len(piece) > cut:
                self.wfile.write(piece[: cut - start])
                self.owner.sent += cut - start
                self.close_connection = True
                # What was written arrives, and nothing more.
                self.connection.shutdown(socket.SHUT_WR)
                return
            stalls = self.owner.stalls
            if is_model and cut is None and stalls is not None and start >= stalls:
                self.owner.go_on.wait(60)
                self.close_connection = True
                return
            try:
                self.wfile.write(piece)
            except OSError:  # the client was killed
                self.close_connection = True
                return
            self.owner.sent += len(piece) if is_model else 0


class WebFolder(LocalServer):
    """Files by path, with an index of links for each folder, as nginx writes them."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__()
        self.files = files

    def answer(self, asked: Asked) -> Answer:
        path = urllib.parse.unquote(asked.path).lstrip("/")
        if path in self.files:
            body = self.files[path]
            tag = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}
            return Answer(body=body, headers=tag, contents=True)
        folder = f"{path.rstrip('/')}/".lstrip("/")
        below = {p.removeprefix(folder) for p in self.files if p.startswith(folder)}
        if not below:
            return Answer(404)
        names = {p.partition("/")[0] + ("/" if "/" in p else "") for p in below}
        links = "".join(f'<a href="{name}">{name}</a>\n' for name in ["../", *sorted(names)])
        return Answer(body=f"<html>{links}</html>".encode(), headers={"Content-Type": "text/html"})

    def downloads(self) -> list[Asked]:
        return [a for a in self.requests if a.method == "GET" and a.path.endswith(".onnx")]


class Registry(LocalServer):
    """The part of the OCI distribution API that a pull needs.

    password: in Base64, if one is required. tokens: those that are valid, if the password is to be
    exchanged for one first, at /token.
    """

    def __init__(self, password: str = "") -> None:
        super().__init__()
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.password = password
        self.tokens: set[str] | None = None

    def push(self, tag: str, files: Mapping[str, bytes], **annotations: str) -> str:
        """Store an artifact, and return its digest."""
        layers = []
        for title, contents in files.items():
            digest = f"sha256:{hashlib.sha256(contents).hexdigest()}"
            self.blobs[digest] = contents
            titled = {"org.opencontainers.image.title": title, **annotations}
            layers.append(
                {
                    "mediaType": "application/vnd.onnx",
                    "digest": digest,
                    "size": len(contents),
                    "annotations": titled,
                }
            )
        return self.put_manifest(tag, manifest(layers))

    def put_manifest(self, tag: str, contents: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(contents).hexdigest()}"
        self.manifests[tag] = self.manifests[digest] = contents
        return digest

    def answer(self, asked: Asked) -> Answer:
        if refusal := self._refusal(asked):
            return refusal
        found = re.fullmatch(r"/v2/zoo/(manifests|blobs)/(.+)", asked.path)
        if found and found[1] == "manifests" and found[2] in self.manifests:
            kind = "application/vnd.oci.image.manifest.v1+json"
            return Answer(body=self.manifests[found[2]], headers={"Content-Type": kind})
        if found and found[1] == "blobs" and found[2] in self.blobs:
            return Answer(body=self.blobs[found[2]], contents=True)
        return Answer(404)

    def _refusal(self, asked: Asked) -> Answer | None:
        sent = asked.headers.get("Authorization", "")
        if not self.password:
            return None
        if self.tokens is None:
            challenge = {"WWW-Authenticate": 'Basic realm="tests.invalid"'}
            return None if sent == f"Basic {self.password}" else Answer(401, headers=challenge)
        if asked.path.startswith("/token"):
            if sent != f"Basic {self.password}":
                return Answer(401)
            self.tokens.add(token := f"token-{len(self.requests)}")
            return Answer(body=json.dumps({"token": token}).encode())
        realm = f'Bearer realm="http://{self.address}/token",service="zoo"'
        known = sent.removeprefix("Bearer ") in self.tokens
        return None if known else Answer(401, headers={"WWW-Authenticate": realm})

    def downloads(self) -> list[Asked]:
        return [a for a in self.requests if a.method == "GET" and "/blobs/" in a.path]


def manifest(layers: list[dict[str, Any]]) -> bytes:
    """Return an artifact's manifest, as the specification has it."""
    empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.visavis.models",
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": empty,
                "size": 2,
            },
            "layers": layers,
        }
    ).encode()


class Hub(LocalServer):
    """The part of Hugging Face's API that a pull needs, for the repository team/zoo."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__()
        self.files = files

    def answer(self, asked: Asked) -> Answer:
        url = urllib.parse.urlsplit(asked.path)
        path = urllib.parse.unquote(url.path)
        if not path.startswith(("/api/models/team/zoo", "/team/zoo/resolve/main/")):
            return Answer(404, headers={"X-Error-Code": "RepoNotFound"})
        if path.startswith("/team/zoo/resolve/main/"):
            body = self.files.get(path.removeprefix("/team/zoo/resolve/main/"))
            return Answer(body=body, contents=True) if body is not None else Answer(404)
        tree = re.fullmatch(r"/api/models/team/zoo/tree/main/?(.*)", path)
        if tree:
            return self._json(self._tree(tree[1]))
        return self._json({"id": "team/zoo", "sha": "0" * 40, "siblings": [], "private": False})

    def _tree(self, folder: str) -> list[dict[str, Any]]:
        prefix = f"{folder}/" if folder else ""
        found: dict[str, dict[str, Any]] = {}
        for path, contents in self.files.items():
            if not path.startswith(prefix):
                continue
            name, slash, _ = path.removeprefix(prefix).partition("/")
            full, oid = prefix + name, hashlib.sha1(contents).hexdigest()
            if slash:
                found[full] = {"type": "directory", "path": full, "oid": "0" * 40, "size": 0}
                continue
            sha256 = hashlib.sha256(contents).hexdigest()
            lfs = {"oid": sha256, "size": len(contents), "pointerSize": 134}
            size = len(contents)
            found[full] = {"type": "file", "path": full, "oid": oid, "size": size, "lfs": lfs}
        return list(found.values())

    def _json(self, value: Any) -> Answer:
        return Answer(body=json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    def downloads(self) -> list[Asked]:
        return [a for a in self.requests if a.method == "GET" and "/resolve/" in a.path]
