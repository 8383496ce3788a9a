"""The command: its exit codes, what it imports, what it says, and what it keeps to itself."""

import base64
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.process import PATIENCE_S, free_port, until
from tests.pull.command import Puller
from tests.pull.models import LARGE_BYTES, model, put
from tests.pull.servers import Registry, WebFolder
from tests.pull.stores import BUCKET, S3, Azure
from tests.surroundings import Surroundings
from visavis_server.pull.redaction import redacted

_FILES = {"colors/1/model.onnx": model()}


@pytest.mark.parametrize(
    ("url", "code", "sentence"),
    [
        ("ftp://host/models", 2, "is not a source of models"),
        ("s3://", 2, "the place after s3:// is missing"),
        ("oci://user:SECRET@host/zoo:1", 2, "oci://…@host/zoo:1 must be oci://REGISTRY"),
        ("no-such-folder", 1, "is not a folder"),
    ],
)
def test_a_wrong_source_is_named(command: Puller, url: str, code: int, sentence: str) -> None:
    done = command.run(url)
    assert (done.code, done.out) == (code, "")
    assert sentence in done.err
    assert done.err.startswith("visavis: ") and done.err.count("\n") == 1
    assert "SECRET" not in done.err


def test_a_source_that_does_not_answer_has_an_exit_code_of_its_own(
    command: Puller, registry: Registry
) -> None:
    done = command.run(f"oci://127.0.0.1:{free_port()}/zoo:1")
    assert done.code == 3 and "no usable answer" in done.err
    registry.down = 500
    assert command.run(f"oci://{registry.address}/zoo:1").code == 3
    registry.down = 0
    done = command.run(f"oci://{registry.address}/zoo:1")
    assert done.code == 1 and "the registry does not have it" in done.err


def test_s3_lists_each_folder_once_and_fetches_nothing_twice(
    s3: S3, tmp_path: Path, out: Path
) -> None:
    command = Puller.under(tmp_path / "client", **s3.variables)
    s3.put("once/colors/1/model.onnx", model())
    command.ok(f"s3://{BUCKET}/once", "--out", out)
    s3.forget()
    command.ok(f"s3://{BUCKET}/once", "--out", out)
    asked = [line for line in s3.requests() if "HTTP/1.1" in line]
    assert len(asked) == 3 and all("list-type=2" in line for line in asked)


def test_s3_without_access_is_explained(s3: S3, tmp_path: Path) -> None:
    address = {"AWS_ENDPOINT_URL": s3.variables["AWS_ENDPOINT_URL"]}
    alone = {"AWS_EC2_METADATA_DISABLED": "true"}  # no network is asked for a role
    done = Puller.under(tmp_path / "bare", **address, **alone).run(f"s3://{BUCKET}/zoo")
    assert done.code == 1 and "access denied" in done.err
    assert "AWS_ACCESS_KEY_ID" in done.err
    done = Puller.under(tmp_path / "client", **s3.variables).run("s3://no-such-bucket/zoo")
    assert done.code == 1 and "does not exist" in done.err
    assert "SECRET" not in done.err


def test_azure_without_access_is_explained(azure: Azure, tmp_path: Path) -> None:
    ((name, connection),) = azure.variables.items()
    other_key = {name: connection.replace("AccountKey=", "AccountKey=U0VDUkVU")}
    said = []
    for variables in ({}, other_key):
        done = Puller.under(tmp_path / "bare", **variables).run(f"az://{BUCKET}/zoo")
        assert done.code == 1 and "access denied" in done.err
        assert "AZURE_STORAGE_CONNECTION_STRING" in done.err
        said.append(done.err)
    done = Puller.under(tmp_path / "client", **azure.variables).run("az://no-such-container/zoo")
    assert done.code == 1 and "check that it exists" in done.err
    assert "U0VDUkVU" in connection  # as every key of an account, in Base64
    assert "U0VDUkVU" not in "".join([*said, done.err])


def test_a_registrys_password_comes_from_dockers_file_and_is_not_said(
    tmp_path: Path, out: Path
) -> None:
    password = base64.b64encode(b"robot:SECRET").decode()
    with Registry(password) as registry:
        registry.push("1", _FILES)
        command = Puller.under(tmp_path / "client")
        url = f"oci://{registry.address}/zoo:1"
        done = command.run(url, "--out", out)
        assert done.code == 1 and "log in with `docker login`" in done.err
        logins = {"auths": {registry.address: {"auth": password}}}
        put(command.surroundings.home, ".docker/config.json", json.dumps(logins).encode())
        done = command.run(url, "--out", out)
        assert (done.code, done.err) == (0, "")
        registry.tokens = set()
        registry.push("1", {**_FILES, "colors/2/model.onnx": model(gain=2.0)})
        done = command.run(url, "--out", out)
        assert (done.code, done.err) == (0, "") and "colors/2: fetched" in done.out
        assert password not in (out / "colors/1/.pull.json").read_text("utf-8")


def test_what_is_secret_in_a_url_is_noted_nowhere(
    web: WebFolder, command: Puller, out: Path
) -> None:
    web.files = {f"zoo/{path}": contents for path, contents in _FILES.items()}
    done = command.run(f"http://robot:SECRET@{web.address}/zoo", "--out", out)
    assert done.code == 0, done.err
    web.down = 403
    refused = command.run(f"http://robot:SECRET@{web.address}/zoo", "--out", out)
    assert refused.code == 1
    texts = [done.out, done.err, refused.err, (out / "colors/1/.pull.json").read_text("utf-8")]
    assert "SECRET" not in "".join(texts)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://u:p@host/a", "https://…@host/a"),
        ("at s3://key:SECRET@bucket/x: gone", "at s3://…@bucket/x: gone"),
        ("GET https://h/a?X-Amz-Signature=abc failed", "GET https://h/a failed"),
        ("hf://team/zoo@v1/models", "hf://team/zoo@v1/models"),
        ("az://zoo@account.blob/x", "az://zoo@account.blob/x"),
        ("AccountKey=abc==;Endpoint=x", "AccountKey=…;Endpoint=x"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer …"),
        ("two\nlines\x1b[2J", "two\\nlines\\x1b[2J"),
    ],
)
def test_messages_lose_what_may_be_secret(text: str, wanted: str) -> None:
    assert redacted(text) == wanted


def test_a_large_download_ends_at_sigterm_and_goes_on_later(
    registry: Registry, command: Puller, out: Path
) -> None:
    registry.push("1", {"colors/1/model.onnx": model(extra_bytes=LARGE_BYTES)})
    registry.stalls = 1 << 20
    url = f"oci://{registry.address}/zoo:1"
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        registry.forget()
        with command.start(url, "--out", out) as process:
            until(lambda: len(registry.downloads()) == 1, "nothing is fetched")
            process.send_signal(number)
            _, error = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, error) == (code, "")
    done = command.run(url, "--out", out, "--timeout", "1")
    assert done.code == 4 and "longer than --timeout 1" in done.err
    registry.stalls = None
    assert "colors/1: fetched" in command.ok(url, "--out", out)


_ALONE = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
from visavis.commands import main
code = main(["pull", *sys.argv[2:]])
loaded = {"torch", "onnxruntime", "s3fs", "gcsfs", "adlfs", "huggingface_hub", "oras", "grpc"}
print(*sorted(loaded & {name for name, module in sys.modules.items() if module}))
sys.exit(code)
"""


def _without(
    modules: str, found: Surroundings, *arguments: str | Path
) -> "subprocess.CompletedProcess[str]":
    """Run a pull in an environment that lacks some modules; its last line: what it has loaded."""
    return subprocess.run(
        [sys.executable, "-P", "-c", _ALONE, modules, *arguments],
        cwd=found.elsewhere,
        env=found.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("url", "module"),
    [
        ("s3://bucket/zoo", "s3fs"),
        ("oci://localhost:1/zoo:1", "oras"),
        ("https://localhost:1/zoo", "aiohttp"),
        ("s3://bucket/zoo", "fsspec"),
    ],
)
def test_a_missing_library_is_named_with_the_extra_to_install(
    url: str, module: str, tmp_path: Path
) -> None:
    done = _without(module, Surroundings.under(tmp_path), url)
    assert done.returncode == 2
    assert f"needs the module {module}" in done.stderr
    assert "pip install 'visavis-server[pull]'" in done.stderr


def test_a_pull_needs_neither_torch_nor_the_libraries_of_other_sources(
    registry: Registry, tmp_path: Path, out: Path
) -> None:
    registry.push("1", _FILES)
    absent = "torch,onnx,s3fs,gcsfs,adlfs,huggingface_hub,model_signing"
    url = f"oci://{registry.address}/zoo:1"
    done = _without(absent, Surroundings.under(tmp_path), url, "--out", out)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"colors/1: fetched, .*\noras\n", done.stdout)
    key = put(tmp_path, "key.pem", b"")
    done = _without(absent, Surroundings.under(tmp_path), url, "--verify-key", key)
    assert done.returncode == 2
    assert "pip install 'visavis-server[pull-signed]'" in done.stderr
