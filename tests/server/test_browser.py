"""`visavis serve --open`, with a browser that writes down what it is asked to open."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.process import ServerProcess, until
from tests.server import graphs
from visavis_server.errors import StartupError
from visavis_server.settings import load_settings

ANYWHERE = ("--http", "127.0.0.1:0", "--open")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    model, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    graphs.put(folder, "colors", 1, model)
    return folder


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with two browsers that stay open, one of them in the terminal."""
    for name in ("graphical", "www-browser"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\necho "$1" >"$0.url"\necho $$ >"$0.pid"\nexec sleep 60\n')
        program.chmod(0o755)
    yield tmp_path
    for file in tmp_path.glob("*.pid"):
        os.kill(int(file.read_text()), signal.SIGKILL)


def logged(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    entries = map(json.loads, server.log.splitlines())
    return [entry for entry in entries if entry["event"] == event]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_page_is_opened_once_and_an_open_browser_delays_no_stop(
    models: Path, programs: Path, tmp_path: Path, workers: str
) -> None:
    browser = programs / "graphical"
    folder = tmp_path / "server"
    options = (*ANYWHERE, "--workers", workers)
    with ServerProcess(models, folder, *options, BROWSER=str(browser), TERM="xterm") as server:
        until((programs / "graphical.pid").exists, "no browser was started")
        (ready,) = logged(server, "ready" if workers == "1" else "all workers ready")
        url = f"http://{ready['http']}/"
        assert (programs / "graphical.url").read_text().strip() == url
        assert [entry["url"] for entry in logged(server, "opening the page")] == [url]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert logged(server, "no browser was found") == []
        assert Path(f"/proc/{(programs / 'graphical.pid').read_text().strip()}").exists()


def test_without_a_browser_the_server_says_where_the_page_is_and_serves(
    models: Path, programs: Path, tmp_path: Path
) -> None:
    # A browser in the terminal would hide the log.
    path = f"{programs}:{os.environ['PATH']}"
    with ServerProcess(models, tmp_path / "server", *ANYWHERE, PATH=path, TERM="xterm") as server:
        until(lambda: logged(server, "no browser was found"), "nothing was said")
        (ready,) = logged(server, "ready")
        (entry,) = logged(server, "no browser was found")
        assert entry["why"] == f"open http://{ready['http']}/ yourself"
        assert not (programs / "www-browser.url").exists()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_without_http_there_is_no_page_to_open(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"set http, such as --http 127\.0\.0\.1:8000"):
        load_settings({"open": True}, None)
