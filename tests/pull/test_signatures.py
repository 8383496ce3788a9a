"""Signatures of model-signing: only what the key's owner has signed becomes visible."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.pull.command import Puller
from tests.pull.models import model, put, visible
from tests.surroundings import Surroundings

_PROGRAM = str(Path(sys.executable).with_name("model_signing"))


def _new_key(folder: Path, name: str) -> tuple[Path, Path]:
    """Return the paths of a new private and public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(_pem(key.public_key()))
    return private, public


def _pem(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form)


# What its command `sign key` does, for several folders.
_SIGN = """
import sys
from model_signing.signing import Config
for private, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    signer = Config().use_elliptic_key_signer(private_key=private)
    signer.sign(folder, f"{folder}/model.sig")
"""


def _sign(folders: dict[Path, Path], tmp_path: Path) -> None:
    """Sign versions' folders, each with a private key."""
    pairs = [path for folder, private in folders.items() for path in (private, folder)]
    _run([sys.executable, "-P", "-c", _SIGN, *pairs], tmp_path)


def _sign_as_the_guide_says(folder: Path, private: Path, tmp_path: Path) -> None:
    key = ["--private_key", private, "--signature", folder / "model.sig"]
    _run([_PROGRAM, "sign", "key", *key, folder], tmp_path)


def _run(command: Sequence[str | Path], tmp_path: Path) -> None:
    found = Surroundings.under(tmp_path / "signer")
    done = subprocess.run(
        command,
        cwd=found.elsewhere,
        env=found.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return _new_key(tmp_path, "ours")


def test_only_what_was_signed_becomes_visible(
    keys: tuple[Path, Path], command: Puller, out: Path, tmp_path: Path
) -> None:
    private, public = keys
    source = tmp_path / "source"
    signed = put(source, "colors/1/model.onnx", model()).parent
    changed = put(source, "colors/2/model.onnx", model(gain=2.0)).parent
    put(source, "colors/3/model.onnx", model(gain=3.0))
    renamed = put(source, "shades/1/model.onnx", model()).parent
    theirs = put(source, "shades/2/model.onnx", model("shades")).parent
    ours = dict.fromkeys((signed, changed, renamed), private)
    _sign({**ours, theirs: _new_key(tmp_path, "theirs")[0]}, tmp_path)
    (changed / "model.onnx").write_bytes(model(gain=4.0))  # its own digest matches
    done = command.run(source, "--out", out, "--verify-key", public)
    assert done.code == 1
    assert "colors/1: fetched" in done.out and "digest matches, signature valid" in done.out
    assert set(visible(out)) == {"colors/1/model.onnx", "colors/1/model.sig"}
    reasons = done.err.splitlines()
    assert len(reasons) == 4
    assert "colors/2: its signature is not valid for ours.pem" in reasons[0]
    assert "colors/3: it has no model.sig" in reasons[1]
    assert "shades/1: it is the signed model colors" in reasons[2]
    assert "shades/2: its signature is not valid for ours.pem" in reasons[3]


def test_a_key_that_is_given_later_is_asked_of_what_is_already_here(
    keys: tuple[Path, Path], command: Puller, out: Path, tmp_path: Path
) -> None:
    private, public = keys
    source = tmp_path / "source"
    signed = put(source, "colors/1/model.onnx", model()).parent
    put(source, "colors/2/model.onnx", model(gain=2.0))
    _sign_as_the_guide_says(signed, private, tmp_path)
    command.ok(source, "--out", out)
    done = command.run(source, "--out", out, "--verify-key", public)
    assert done.out == "colors/1: adopted, digest matches, signature valid\n"
    assert "colors/2: it has no model.sig" in done.err
    assert "the version that is here stays" in done.err
    assert "colors/1: unchanged" in command.run(source, "--out", out, "--verify-key", public).out


def test_a_file_that_is_no_key_is_an_invalid_argument(
    command: Puller, out: Path, tmp_path: Path
) -> None:
    put(tmp_path / "source", "colors/1/model.onnx", model())
    rsa_key = tmp_path / "rsa.pem"
    rsa_key.write_bytes(_pem(rsa.generate_private_key(65537, 2048).public_key()))
    for key in (rsa_key, tmp_path / "missing.pem"):
        done = command.run(tmp_path / "source", "--out", out, "--verify-key", key)
        assert done.code == 2
        assert f"--verify-key {key}" in done.err
    assert not out.exists()
