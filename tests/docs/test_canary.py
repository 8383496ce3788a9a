"""The guide's shadow and canary, added to the shipped configuration of Envoy and tried."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from markdown_it import MarkdownIt
from visavis import Client, VisavisError

from tests.faults.process import ServerProcess, free_port, until
from tests.server import graphs
from tests.server.pictures import RED, plain
from tests.surroundings import Surroundings

_ROOT = Path(__file__).parents[2]
_PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
_CALLS = 200
# Of the candidate.
METRICS = f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def guide() -> list[dict[str, Any]]:
    """Return the guide's blocks of YAML: the cluster, the mirror, the weights."""
    text = (_ROOT / "docs" / "guides" / "canary.md").read_text("utf-8")
    tokens = MarkdownIt().parse(text)
    return [yaml.safe_load(one.content) for one in tokens if one.info == "yaml"]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    """Start the current server, with version 1, and the candidate, with version 2."""
    folder = tmp_path_factory.mktemp("canary")
    model, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    for version in (1, 2):
        graphs.put(folder / str(version), "colors", version, model)
    with (
        ServerProcess(folder / "1", folder / "current") as current,
        ServerProcess(folder / "2", folder / "candidate", "--metrics", METRICS) as candidate,
    ):
        yield [current, candidate]


@contextmanager
def envoy(
    guide: list[dict[str, Any]], route: dict[str, Any], servers: list[ServerProcess], folder: Path
) -> Iterator[Client]:
    """Start the shipped configuration with the guide's cluster and a changed route."""
    program = shutil.which("envoy", path=_PATH)
    if program is None:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up("needs envoy")
    assert program is not None
    shipped = yaml.safe_load((_ROOT / "deploy" / "proxies" / "envoy.yaml").read_text("utf-8"))
    resources = shipped["static_resources"]
    (chain,) = resources["listeners"][0]["filter_chains"]
    hosts = chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    first = hosts[0]["routes"][0]["route"]
    if "weighted_clusters" in route:
        del first["cluster"]
    first.update(route)
    resources["clusters"].append(guide[0])
    port = free_port()
    ports = {
        "8001": servers[0].port,
        "8011": servers[0].port,
        "8021": servers[1].port,
        "8100": port,
    }
    file = folder / "envoy.yaml"
    pattern = r"\b(?:" + "|".join(ports) + r")\b"
    file.write_text(re.sub(pattern, lambda old: str(ports[old[0]]), yaml.safe_dump(shipped)))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-c", file, "--concurrency", "1", "--disable-hot-restart"],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=Surroundings.under(folder).environment(),
        )
    try:
        with Client(f"127.0.0.1:{port}") as client:

            def answers() -> bool:
                assert process.poll() is None, (folder / "log").read_text()
                try:
                    client.classify(plain(RED), model="colors", timeout=1)
                except VisavisError:
                    return False
                return True

            until(answers, "Envoy does not answer")
            yield client
    finally:
        process.terminate()
        process.wait()


def versions(client: Client) -> Counter[int]:
    """Return how often each version answers."""
    answers = (client.classify(plain(RED), model="colors") for _ in range(_CALLS))
    return Counter(answer.served_by.version for answer in answers)


def test_a_canary_answers_its_share_of_the_requests(
    guide: list[dict[str, Any]], servers: list[ServerProcess], tmp_path: Path
) -> None:
    with envoy(guide, guide[2], servers, tmp_path) as client:
        counted = versions(client)
    # 5 % of 200: fewer than 1 or more than 30 happen once in 28,000 runs.
    assert counted.keys() == {1, 2}
    assert counted[2] <= 30


def test_a_shadow_sees_its_share_and_answers_no_one(
    guide: list[dict[str, Any]], servers: list[ServerProcess], tmp_path: Path
) -> None:
    before = seen()
    with envoy(guide, guide[1], servers, tmp_path) as client:
        assert versions(client) == {1: _CALLS}
    assert 1 <= seen() - before <= _CALLS / 4


def seen() -> float:
    """Return how many calls the candidate has answered."""
    with urlopen(f"http://{METRICS}/metrics") as response:  # a fixed address
        text = response.read().decode()
    found = re.findall(
        r'^visavis_calls_total\{.*method="[^"]*/Classify".*\} (.+)$', text, re.MULTILINE
    )
    return sum(map(float, found))
