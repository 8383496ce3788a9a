"""Pages of other origins in a real browser: what they send without asking does no work here."""

import base64
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.server.pictures import RED, plain

from .conftest import Open, Playground

# Sends a form, and an inference, as text: neither is asked for by a CORS preflight.
SEND = """async ([url, picture]) => {
    const bytes = Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0));
    const form = new FormData();
    form.append("image", new Blob([bytes]), "a.png");
    form.append("model", "boxes");
    const detect = `${url}visavis.v1.VisionService/Detect`;
    const send = (path, body) => fetch(path, { method: "POST", mode: "no-cors", body });
    return [await send(detect, form), await send(`${url}v2/repository/index`, "{}")].map(
        (response) => response.status);
}"""


PICTURE = base64.b64encode(plain(RED)).decode()


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title><link rel=icon href=data:,>")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Return the address of a page of another origin."""
    with HTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


def counted(playground: Playground) -> dict[str, float]:
    """Return the calls over HTTP so far, by method."""
    with urllib.request.urlopen(f"{playground.url}metrics") as metrics:
        lines = metrics.read().decode().splitlines()
    calls = [line for line in lines if line.startswith("visavis_calls_total{") and "http" in line]
    return {
        method: sum(float(line.rpartition(" ")[2]) for line in calls if method in line)
        for method in ("/Detect", "/RepositoryIndex")
    }


def test_a_page_of_another_origin_gets_nothing_done(
    elsewhere: str, playground: Playground, open_page: Open
) -> None:
    before = counted(playground)
    page = open_page(elsewhere)
    page.evaluate(SEND, [playground.url, PICTURE])
    assert counted(playground) == before
    rejected = "Failed to load resource: the server responded with a status of 403 (Forbidden)"
    for path in ("visavis.v1.VisionService/Detect", "v2/repository/index"):
        page.expected_troubles += [f"asked {playground.url}{path}", rejected]


def test_the_server_s_own_page_gets_it_done(playground: Playground, open_page: Open) -> None:
    before = counted(playground)
    page = open_page()
    assert page.evaluate(SEND, [playground.url, PICTURE]) == [200, 200]
    after = counted(playground)
    assert {method: after[method] - before[method] for method in after} == {
        "/Detect": 1,
        "/RepositoryIndex": 1,
    }
