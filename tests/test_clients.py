"""The clients of all languages, compiled and run against live servers."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme
from visavis import TLS, Client
from visavis.v1.vision_pb2_grpc import VisionServiceStub

from tests import builds
from tests.bad_road import breaking, forwarding
from tests.faults.process import PATIENCE_S, ServerProcess, free_port
from tests.proxies import require, started
from tests.samples import Samples
from tests.scenario import assert_same, expected_lines
from tests.surroundings import Surroundings
from visavis_server.transport.tokens import new_token

CLIENTS = Path(__file__).parents[1] / "clients"
# What each language is built and run with.
TOOLS = {
    "python": (),
    "go": ("go",),
    "cpp": ("cmake", "protoc", "grpc_cpp_plugin"),
    "rust": ("cargo", "protoc"),
    "java": ("mvn", "javac", "protoc", "grpc_java_plugin"),
    "typescript": ("npm",),
}


@dataclass(frozen=True)
class Servers:
    """Two that serve the same models, one of them over TLS and to those with a token only."""

    plain: str
    tls: str
    ca_file: Path
    token: str


@pytest.fixture(scope="module")
def models(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository whose detectors, other than the samples', are two and disagree."""
    models = tmp_path_factory.mktemp("clients") / "models"
    shutil.copytree(samples.models, models)
    samples.put_smaller(models)
    return models


@pytest.fixture(scope="module")
def servers(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    authority, token = trustme.CA(), new_token("clients")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "tokens").write_text(f"{token.line}\n")
    secured = (
        *("--tls-certificate", str(folder / "certificate.pem")),
        *("--tls-private-key", str(folder / "key.pem")),
        *("--tokens", str(folder / "tokens")),
    )
    with ExitStack() as stack:
        plain, tls = ServerProcess(models, folder), ServerProcess(models, folder, *secured)
        stack.push(plain)
        stack.push(tls)
        plain.wait_until_ready()
        servers = Servers(plain.address, f"localhost:{tls.port}", folder / "ca.pem", token.token)
        with Client(servers.tls, tls=TLS(servers.ca_file), token=servers.token) as client:
            client.wait_until_ready(PATIENCE_S)
        yield servers


@pytest.fixture(scope="module")
def expected(servers: Servers, samples: Samples) -> list[str]:
    with grpc.insecure_channel(servers.plain) as channel:
        stub = VisionServiceStub(channel)  # type: ignore[no-untyped-call]
        return expected_lines(stub, samples.bus.read_bytes())


@pytest.fixture(scope="module")
def behind_envoy(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of Envoy; the server stands for both of those that it expects."""
    require("envoy")
    addresses = [servers.plain] * 4
    with started("envoy.yaml", addresses, tmp_path_factory.mktemp("envoy")) as proxy:
        yield proxy.address


@pytest.fixture(scope="module", params=TOOLS)
def scenario(request: pytest.FixtureRequest) -> Path:
    require_tools(request.param)
    return built(request.param)


def require_tools(language: str) -> None:
    """Skip where a language can't be built; CI builds every client."""
    if missing := missing_tools(language):
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"needs {missing}")


def missing_tools(language: str) -> str:
    return ", ".join(tool for tool in TOOLS[language] if shutil.which(tool) is None)


@functools.cache
def built(language: str) -> Path:
    """Return the program of a language, after building it."""
    make = subprocess.run(
        ["make", "-C", CLIENTS / language, "build"],
        env={**builds.ENVIRONMENT, "PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert make.returncode == 0, make.stdout[-4000:]
    return CLIENTS / language / "build" / "scenario"


def run(program: Path | str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    with Surroundings.temporary() as found:
        return subprocess.run(
            [program, *arguments],
            cwd=found.elsewhere,
            env=found.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def test_several_workers_answer_as_one_process_does(
    models: Path, servers: Servers, samples: Samples, expected: list[str], tmp_path: Path
) -> None:
    program = built("python")
    with ServerProcess(models, tmp_path, "--workers", "4") as server:
        # On several connections, and so in several workers.
        for _ in range(3):
            done = run(program, server.address, samples.bus)
            assert done.returncode == 0, done.stderr
            assert_same(done.stdout.splitlines(), expected[:-1])


def test_a_client_prints_what_the_contract_says(
    scenario: Path, servers: Servers, samples: Samples, expected: list[str]
) -> None:
    secured = (servers.tls, servers.ca_file, servers.token)
    done = run(scenario, servers.plain, samples.bus, *secured)
    assert (done.returncode, done.stderr) == (0, "")
    assert_same(done.stdout.splitlines(), expected)


def test_a_client_gets_the_same_answers_through_envoy(
    scenario: Path, behind_envoy: str, samples: Samples, expected: list[str]
) -> None:
    done = run(scenario, behind_envoy, samples.bus)
    assert (done.returncode, done.stderr) == (0, "")
    assert_same(done.stdout.splitlines(), expected[:-1])


def test_a_client_leaves_the_last_step_out_without_its_arguments(
    scenario: Path, servers: Servers, samples: Samples, expected: list[str]
) -> None:
    done = run(scenario, servers.plain, samples.bus)
    assert (done.returncode, done.stderr) == (0, "")
    assert_same(done.stdout.splitlines(), expected[:-1])


def test_a_client_repeats_what_breaks_or_is_unavailable_and_takes_large_answers(
    scenario: Path, servers: Servers, samples: Samples, expected: list[str]
) -> None:
    # 5 MiB: gRPC's clients take 4 unless they are set to take more. 100 KB: a part of a picture.
    with (
        forwarding(servers.plain, 5 << 20, "Detect") as forwarder,
        breaking(forwarder, 100_000) as (address, connections),
    ):
        done = run(scenario, address, samples.bus)
        assert (done.returncode, connections() > 1) == (0, True), done.stderr
    assert_same(done.stdout.splitlines(), expected[:-1])


def test_a_client_ends_with_1_at_a_server_whose_authority_it_does_not_know(
    scenario: Path, servers: Servers, samples: Samples, expected: list[str], tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    secured = (servers.tls, tmp_path / "ca.pem", servers.token)
    done = run(scenario, servers.plain, samples.bus, *secured)
    # gRPC's own libraries have something to say, too.
    assert (done.returncode, "\nscenario: " in f"\n{done.stderr}") == (1, True), done.stderr
    assert_same(done.stdout.splitlines(), expected[:-1])


def test_clients_end_with_1_where_no_server_answers(samples: Samples, tmp_path: Path) -> None:
    # All at once: each waits for half a minute.
    nobody, found = f"127.0.0.1:{free_port()}", Surroundings.under(tmp_path)
    processes = {
        language: subprocess.Popen(
            [built(language), nobody, samples.bus],
            cwd=found.elsewhere,
            env=found.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for language in TOOLS
        if not missing_tools(language)
    }
    assert processes
    for language, process in processes.items():
        printed, error = process.communicate(timeout=120)
        assert (process.returncode, printed) == (1, ""), language
        assert error.startswith("scenario: "), f"{language}: {error}"
