"""Stores that run as processes of their own: S3, Google's and Azure's emulators, a registry."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from azure.storage.blob import ContainerClient

from tests import npm
from tests.faults.process import PATIENCE_S, free_port
from tests.pull.servers import manifest
from tests.surroundings import Surroundings

BUCKET = "models-of-tests"


class Store:
    """A store at an address; variables: how the libraries find it."""

    def __init__(self, address: str, variables: Mapping[str, str], folder: Path) -> None:
        self.address, self.variables = address, dict(variables)
        self._log = folder / "server.log"

    def forget(self) -> None:
        """Count requests from here on."""
        self._seen = len(self._log.read_text("utf-8").splitlines())

    def requests(self) -> list[str]:
        """Return the lines of the log since `forget`, without their colours."""
        lines = self._log.read_text("utf-8").splitlines()[self._seen :]
        return [re.sub(r"\x1b\[\d+m", "", line).strip("\0") for line in lines]

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        **headers: str,
    ) -> tuple[int, dict[str, str]]:
        """Send a request, and return the status and headers of its answer."""
        url = path if path.startswith("http") else f"http://{self.address}{path}"
        sent = {"Content-Type": "application/octet-stream"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(url, body, sent, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, dict(answer.headers)


class S3(Store):
    def put(self, key: str, contents: bytes) -> None:
        # moto checks no signature, but wants to see one.
        signed = "AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/s3/aws4_request"
        path = f"/{BUCKET}/{urllib.parse.quote(key)}"
        self.ask("PUT", path, contents, Authorization=f"{signed}, SignedHeaders=host, Signature=0")


class Google(Store):
    def put(self, key: str, contents: bytes) -> None:
        name = urllib.parse.quote(key, safe="")
        path = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}"
        self.ask("POST", path, contents)


class Azure(Store):
    def __init__(self, address: str, variables: Mapping[str, str], folder: Path) -> None:
        super().__init__(address, variables, folder)
        (connection,) = variables.values()
        self.container = ContainerClient.from_connection_string(connection, BUCKET)

    def put(self, name: str, contents: bytes) -> None:
        self.container.upload_blob(name, contents, overwrite=True)


class DockerRegistry(Store):
    def push(self, tag: str, files: Mapping[str, bytes]) -> None:
        """Push an artifact as the specification says."""
        layers = []
        for title, contents in {"": b"{}", **files}.items():
            digest = f"sha256:{hashlib.sha256(contents).hexdigest()}"
            _, headers = self.ask("POST", "/v2/zoo/blobs/uploads/")
            place = urllib.parse.urljoin(f"http://{self.address}", headers["Location"])
            url = f"{place}{'&' if '?' in place else '?'}digest={digest}"
            self.ask("PUT", url, contents)
            titled = {"org.opencontainers.image.title": title}
            size = len(contents)
            layer = {"digest": digest, "size": size, "annotations": titled}
            layers.append({"mediaType": "application/vnd.onnx", **layer})
        kind = "application/vnd.oci.image.manifest.v1+json"
        self.ask("PUT", f"/v2/zoo/manifests/{tag}", manifest(layers[1:]), Content_Type=kind)


@contextmanager
def moto(folder: Path) -> Iterator[S3]:
    """Yield an empty bucket."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with _running(command, folder, f"http://{address}/moto-api/"):
        keys = {"AWS_ACCESS_KEY_ID": "id-of-tests", "AWS_SECRET_ACCESS_KEY": "SECRET-of-tests"}
        store = S3(address, {"AWS_ENDPOINT_URL": f"http://{address}", **keys}, folder)
        store.ask("PUT", f"/{BUCKET}")
        yield store


@contextmanager
def google(folder: Path) -> Iterator[Google]:
    """Yield an empty bucket."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    program = str(Path(sys.executable).with_name("gcp-storage-emulator"))
    command = [program, "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]
    with _running(command, folder, f"http://{address}/storage/v1/b?project=tests"):
        store = Google(address, {"STORAGE_EMULATOR_HOST": f"http://{address}"}, folder)
        body = json.dumps({"name": BUCKET}).encode()
        store.ask("POST", "/storage/v1/b?project=tests", body, Content_Type="application/json")
        yield store


@contextmanager
def azurite(folder: Path) -> Iterator[Azure]:
    """Yield an empty container."""
    port = free_port()
    name, address = "accountoftests", f"127.0.0.1:{port}"
    key = base64.b64encode(b"SECRET-of-tests").decode()
    program = npm.installed(Path(__file__).parent, "azurite") / "dist/src/blob/main.js"
    options = ("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry")
    command = ["node", str(program), "--blobHost=127.0.0.1", f"--blobPort={port}", *options]
    accounts = {"AZURITE_ACCOUNTS": f"{name}:{key}"}
    with _running(command, folder, f"http://{address}/{name}", accounts):
        parts = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": name,
            "AccountKey": key,
            "BlobEndpoint": f"http://{address}/{name}",
        }
        connection = ";".join(f"{part}={value}" for part, value in parts.items())
        store = Azure(address, {"AZURE_STORAGE_CONNECTION_STRING": connection}, folder)
        with store.container:
            store.container.create_container()
            yield store


@contextmanager
def docker_registry(program: str, folder: Path) -> Iterator[DockerRegistry]:
    """Yield an empty registry."""
    address = f"127.0.0.1:{free_port()}"
    folder.mkdir()
    settings = folder / "config.yml"
    storage = {"filesystem": {"rootdirectory": str(folder / "data")}}
    # JSON is YAML.
    settings.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": address}}))
    with _running([program, "serve", str(settings)], folder, f"http://{address}/v2/"):
        yield DockerRegistry(address, {}, folder)


@contextmanager
def _running(
    command: list[str], folder: Path, url: str, variables: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a server until the context ends; it is up once it answers at a URL."""
    found = Surroundings.under(folder)
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=found.elsewhere,
            env=found.environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        end = time.monotonic() + PATIENCE_S
        while not _answers(url):
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < end, log.read_text("utf-8")
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1).close()
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False
    return True
