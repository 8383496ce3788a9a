"""Models as an artifact in an OCI registry: one layer for each file, titled NAME/VERSION/FILE."""

import hashlib
import inspect
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

from visavis_server.names import NAME_RULE
from visavis_server.pull.errors import InvalidSource, PullError, PullFailed, SourceUnreachable
from visavis_server.pull.layout import Collector
from visavis_server.pull.redaction import redacted
from visavis_server.pull.source import Entry, Listing, Restart, Wanted
from visavis_server.pull.translation import first_line, is_transient, missing

_MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_TITLE: Final = "org.opencontainers.image.title"
# The annotation of a folder that `oras push` has packed.
_UNPACK: Final = "io.deis.oras.content.unpack"
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
# The specification asks registries to accept at least 4 MiB.
_MAX_MANIFEST_BYTES: Final = 4 << 20
# Of a token, an error or a redirection: requests and oras read these as a whole.
_MAX_WHOLE_BYTES: Final = 256 << 10
# The time that oras takes to read a challenge grows with the square of its length.
_MAX_CHALLENGE_CHARACTERS: Final = 4096
_REFERENCE: Final = re.compile(
    r"oci://(localhost|[\w-]+(\.[\w-]+)+|\[[0-9a-f:]+\]|[\w-]+(?=:))(:[0-9]{1,5})?"
    r"(/[a-z0-9._-]+)+(:[\w.-]{1,128})?(@sha256:[0-9a-f]{64})?"
)
_CHUNK_BYTES: Final = 256 << 10
_CONNECT_S, _READ_S = 10.0, 60.0


class OciSource:
    """An artifact: oci://REGISTRY/REPOSITORY:TAG or @DIGEST.

    Registries on loopback are asked over HTTP, all others over HTTPS. Raises InvalidSource or
    LibraryMissing.
    """

    def __init__(self, url: str) -> None:
        try:
            from oras.container import Container
            from oras.provider import Registry
        except ImportError as error:
            raise missing("oci", error.name or "oras") from None
        self.name = redacted(url)
        if not _REFERENCE.fullmatch(url):
            raise InvalidSource(
                f"{self.name} must be oci://REGISTRY/REPOSITORY:TAG or oci://REGISTRY/REPOSITORY"
                "@sha256:DIGEST"
            )
        self._container = Container(url.removeprefix("oci://"))
        host = str(self._container.registry)
        self._sends: Literal["nothing", "password", "token"] = "nothing"
        self._registry = Registry(insecure=_is_loopback(host))
        self._registry.session.mount("https://", _adapter())
        self._registry.session.mount("http://", _adapter())
        with self._translated(self.name):
            self._registry.auth.load_configs(self._container)

    def listing(self, wanted: Wanted, max_versions: int) -> Listing:
        """Return its files."""
        found = Collector(self.name, wanted, max_versions)
        for layer in self._layers():
            annotations = layer.get("annotations")
            annotations = annotations if isinstance(annotations, dict) else {}
            title = str(annotations.get(_TITLE, ""))
            name, slash, rest = title.partition("/")
            if annotations.get(_UNPACK) == "true":
                found.pass_over(title, "it is a packed folder; push files: NAME/VERSION/model.onnx")
                continue
            if title.startswith("/"):
                found.pass_over(title, NAME_RULE)
                continue
            if not title or not found.enters_model(name, is_folder=bool(slash)):
                continue
            version, slash, file = rest.partition("/")
            if not found.enters_version(name, version, is_folder=bool(slash)):
                continue
            if found.takes(file):
                found.add(self._entry(title, layer))
        return found.listing()

    def read(self, entry: Entry, offset: int) -> Iterator[bytes]:
        """Yield the contents of a file from an offset on."""
        headers = {"Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={offset}-"} if offset else {}
        with self._translated(entry.path):
            url = self._container.get_blob_url(entry.key)
            with self._asked(url, headers) as response:
                starts = str(response.headers.get("Content-Range", "")).startswith(
                    f"bytes {offset}-"
                )
                if offset and not (response.status_code == 206 and starts):
                    raise Restart
                # Of a cut connection, read1 returns all that arrived.
                while chunk := response.raw.read1(_CHUNK_BYTES):
                    yield chunk

    def tag(self, entry: Entry) -> str:
        """Return the tag that a file has now: layers are named by their contents."""
        return entry.tag

    def _entry(self, title: str, layer: Mapping[str, Any]) -> Entry:
        digest, size = str(layer.get("digest")), layer.get("size")
        known = _DIGEST.fullmatch(digest)
        if not known or not isinstance(size, int) or size < 0:
            raise PullFailed(f"{self.name}: the layer {title!r} has no SHA-256 digest or no size")
        return Entry(title, size, digest, digest, known[1])

    def _layers(self) -> list[Mapping[str, Any]]:
        """Return the layers of the manifest; raises PullFailed for what is none."""
        with self._translated(self.name):
            url = self._container.manifest_url()
            with self._asked(url, {"Accept": ", ".join(_MANIFESTS)}) as response:
                text = response.raw.read(_MAX_MANIFEST_BYTES + 1, decode_content=True)
        if len(text) > _MAX_MANIFEST_BYTES:
            raise PullFailed(
                f"{self.name}: its manifest is larger than {_MAX_MANIFEST_BYTES} bytes"
            )
        wanted = _DIGEST.fullmatch(str(self._container.digest or ""))
        if wanted and hashlib.sha256(text).hexdigest() != wanted[1]:
            raise PullFailed(f"{self.name}: the registry's manifest has another digest")
        try:
            manifest = json.loads(text)
            layers = manifest["layers"]
            if not all(isinstance(layer, dict) for layer in layers):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise PullFailed(
                f"{self.name} is not an artifact with layers; push one with `oras push`"
            ) from None
        return list(layers)

    @contextmanager
    def _asked(self, path: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """Yield the streamed response to a GET; raises PullError for an error's status."""
        response = self._get(f"{self._registry.prefix}://{path}", headers)
        try:
            if response.status_code >= 400 and not (
                response.status_code == 416 and "Range" in headers
            ):
                raise self._refusal(response.status_code)
            yield response
        finally:
            response.close()

    def _get(self, url: str, headers: Mapping[str, str]) -> Any:
        """Return the streamed response to a GET, with the credentials that the registry asks for.

        Unlike oras, sends a password nowhere but to the registry if that asks for it by Basic.
        """
        registry, auth = self._registry, self._registry.auth
        if self._sends == "nothing":
            response = registry.session.get(url, headers=dict(headers), stream=True)
            if response.status_code != 401:
                return response
            response.close()
            challenge = response.headers.get("WWW-Authenticate", "")
            is_basic = challenge.lower().startswith("basic")
            if not (is_basic or re.search(r'realm="[^"]', challenge)):
                raise self._refusal(401)
            self._sends = "password" if is_basic else "token"
        if self._sends == "password":
            if not (password := getattr(auth, "_basic_auth", None)):
                raise self._refusal(401)
            signed = {**headers, "Authorization": f"Basic {password}"}
            return registry.session.get(url, headers=signed, stream=True)
        # Without oras' own attempts, which take two minutes.
        ask = inspect.unwrap(type(registry).do_request)
        response = ask(registry, url, "GET", headers=dict(headers), stream=True)
        if response.status_code == 401:  # the token has expired
            response.close()
            auth.token = None
            response = ask(registry, url, "GET", headers=dict(headers), stream=True)
        return response

    def _refusal(self, status: int) -> PullError:
        if status in (401, 403):
            return PullFailed(
                f"access denied: {self.name}: status {status}; log in with `docker login` or "
                "`oras login`, which write ~/.docker/config.json"
            )
        if status == 404:
            return PullFailed(f"{self.name}: the registry does not have it")
        kind = SourceUnreachable if status == 429 or status >= 500 else PullFailed
        return kind(f"{self.name}: the registry answers with status {status}")

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn the errors of the libraries into ours; what: what was being read."""
        try:
            yield
        except (PullError, Restart):
            raise
        except Exception as error:  # noqa: BLE001  of oras, requests and urllib3
            text = redacted(f"{what}: {first_line(error)}")
            if "request for authentication" in text:  # oras has got no token
                raise self._refusal(401) from None
            if is_transient(error):
                raise SourceUnreachable(f"no usable answer: {text}") from None
            raise PullFailed(text) from None


def _is_loopback(registry: str) -> bool:
    host = re.sub(r":\d+$", "", registry)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _adapter() -> Any:
    """Return a transport with limits of time and size, which oras does not set."""
    from requests.adapters import HTTPAdapter

    class Limited(HTTPAdapter):  # type: ignore[misc, unused-ignore]  # without types
        def send(self, *args: Any, **options: Any) -> Any:
            response = super().send(*args, **{**options, "timeout": (_CONNECT_S, _READ_S)})
            if len(response.headers.get("WWW-Authenticate", "")) > _MAX_CHALLENGE_CHARACTERS:
                raise _too_long(response.url)
            response.raw = _BoundedResponse(response.raw, response.url)
            return response

    return Limited()


class _BoundedResponse:
    """A response of urllib3; what `requests` reads as a whole has a limit.

    Manifests and blobs are read by other methods, piece by piece.
    """

    def __init__(self, response: Any, url: str) -> None:
        self._response, self._url = response, url

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)

    def stream(self, *args: Any, **options: Any) -> Iterator[bytes]:
        """Yield the body; raises PullFailed if it is too long. requests calls this."""
        size = 0
        for piece in self._response.stream(*args, **options):
            size += len(piece)
            if size > _MAX_WHOLE_BYTES:
                raise _too_long(self._url)
            yield piece


def _too_long(url: str) -> PullFailed:
    return PullFailed(
        f"{redacted(url)}: the registry, or its token service, sends a challenge, a token or an "
        "error that is too long"
    )
