"""The page below a path prefix, behind nginx as deploy/proxies ships it."""

import http.client
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from visavis import Client

from tests.faults.process import free_port, until
from tests.npm import missing
from tests.surroundings import Surroundings

from .conftest import Open, Playground
from .test_playground import DETECTION, assert_shows_boxes, detectors, panel

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "proxies" / "nginx-prefix.conf"
PATH = os.pathsep.join((os.environ["PATH"], "/usr/sbin"))


@pytest.fixture(scope="module")
def prefixed(playground: Playground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of the page behind nginx."""
    nginx = shutil.which("nginx", path=PATH)
    if nginx is None:
        missing("needs nginx")
    assert nginx
    folder, port = tmp_path_factory.mktemp("prefix"), str(free_port())
    behind = playground.url.rstrip("/").rpartition(":")[2]
    here = {"8000": behind, "8100": port}
    text = re.sub(r"\b(?:8000|8100)\b", lambda old: here[old[0]], CONFIGURATION.read_text("utf-8"))
    (folder / "visavis.conf").write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "whole.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {temporary} include {folder}/visavis.conf; }}\n"
    )
    process = subprocess.Popen(
        [nginx, "-e", "stderr", "-c", str(folder / "whole.conf")],
        cwd=folder,
        env=Surroundings.under(folder).environment(),
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: status(port, "/visavis/livez") == 200, "nginx does not answer")
        yield f"http://127.0.0.1:{port}/visavis/"
    finally:
        process.terminate()
        process.wait()


def status(port: str, path: str) -> int:
    """Return the status of a request; 0 if nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_the_page_works_below_a_prefix(
    prefixed: str, open_page: Open, picture: Path, client: Client
) -> None:
    page = open_page(prefixed)
    seen = page.pick(picture)
    assert panel(seen, DETECTION, "boxes")["rows"]
    assert_shows_boxes(seen, detectors(client, picture))
    assert prefixed in page.do("text", selector="#snippet")
    for link in ("reference.html", "openapi.json"):
        answered = page.evaluate(
            "async (path) => { const r = await fetch(path); return [r.status, r.url]; }", link
        )
        assert answered == [200, prefixed + link]


def test_a_form_of_the_page_works_below_a_prefix(
    prefixed: str, open_page: Open, picture: Path
) -> None:
    page = open_page(prefixed)
    page.do("offer", file=str(picture))
    answered = page.evaluate(
        """async () => {
            const form = new FormData();
            const canvas = new OffscreenCanvas(8, 8);
            canvas.getContext("2d").fillRect(0, 0, 8, 8);
            form.append("image", await canvas.convertToBlob(), "black.png");
            form.append("model", "boxes");
            const path = "visavis.v1.VisionService/Detect";
            const answer = await fetch(path, { method: "POST", body: form });
            return [answer.status, await answer.json()];
        }"""
    )
    assert answered[0] == 200, answered
    assert [d["label"] for d in answered[1]["detections"]] == ["cat", "dog"]


def test_the_prefix_without_its_slash_is_redirected(prefixed: str) -> None:
    port = prefixed.rstrip("/").rpartition(":")[2].partition("/")[0]
    assert status(port, "/visavis") == 301
