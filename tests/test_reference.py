"""The contract's reference: the page that `make generate` writes and the HTTP door serves."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, message_factory
from visavis.v1 import vision_pb2

from tests.surroundings import Surroundings
from visavis_server.app import App

from .server import graphs, pictures
from .server.serving import served_by, settings

ROOT = Path(__file__).parent.parent
WEB = ROOT / "clients" / "web"
PROTOS = ROOT / "protos"
CONTRACT = vision_pb2.DESCRIPTOR
SERVICE = CONTRACT.services_by_name["VisionService"]


class Page(HTMLParser):
    """What each element that has an id says; where links lead; which tags and attributes it has."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self._within: list[str] = []
        self.feed((WEB / "reference.html").read_text("utf-8"))
        assert not self._within, "every element ends"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.attributes |= set(given)
        self.links += [given["href"]] if "href" in given else []
        if tag in ("link", "meta"):
            return
        name = given.get("id", "")
        assert name not in self.texts, f"two elements are called {name}"
        self._within.append(name)
        if name:
            self.texts[name] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("a", "code", "small"):
            self.handle_data("\n")
        self._within.pop()

    def handle_data(self, data: str) -> None:
        for name in filter(None, self._within):
            self.texts[name] += data


@pytest.fixture(scope="module")
def page() -> Page:
    return Page()


def written() -> dict[str, str]:
    """Return what the lines of the contract say of each of its parts, in the page's words."""
    found: dict[str, str] = {}
    comment: list[str] = []
    scopes: list[str] = []
    lines = (PROTOS / "visavis/v1/vision.proto").read_text("utf-8").splitlines()
    for line in map(str.strip, lines):
        if line.startswith("//"):
            comment.append(line.removeprefix("//").strip().replace("`", ""))
            continue
        name, says = "", []
        if part := re.match(r"(service|rpc|message|enum|oneof) (\w+)", line):
            name = part[2]
        elif part := re.fullmatch(r"(?:(.*) )?(\w+) = (\d+);", line):
            kind, name, number = part.groups()
            json_name = re.sub("_(.)", lambda letter: letter[1].upper(), name)
            says = [name, number, json_name, kind] if kind else [name, number]
        if name:
            found[".".join(filter(None, (*scopes, name)))] = " ".join(says + comment)
        if line == "}":
            scopes.pop()
        elif line.endswith("{"):
            scopes.append("" if line.startswith("oneof") else name)  # its fields are the message's
        comment = []
    return found


def parts() -> Iterator[str]:
    """Yield the names of what the contract consists of, as the stubs know it."""
    yield from (SERVICE.name, *(f"{SERVICE.name}.{method.name}" for method in SERVICE.methods))
    for enum in CONTRACT.enum_types_by_name.values():
        yield from (enum.name, *(f"{enum.name}.{value.name}" for value in enum.values))
    for message in CONTRACT.message_types_by_name.values():
        oneofs = [oneof for oneof in message.oneofs if not oneof.name.startswith("_")]
        yield from (message.name, *(f"{message.name}.{part.name}" for part in oneofs))
        yield from (f"{message.name}.{field.name}" for field in message.fields)


def values(text: str) -> Iterator[Any]:
    """Yield the values of JSON that follow each other."""
    while text := text.lstrip():
        value, end = json.JSONDecoder().raw_decode(text)
        yield value
        text = text[end:]


def test_every_part_of_the_contract_is_there_with_its_comment(page: Page) -> None:
    texts = {name: " ".join(text.split()) for name, text in page.texts.items()}
    assert sorted(texts) == sorted(parts())
    assert [name for name, says in written().items() if says not in texts[name]] == []
    assert sorted(written()) == sorted(texts)


def test_every_link_has_its_target(page: Page) -> None:
    targets = {*(f"#{name}" for name in page.texts), *(file.name for file in WEB.iterdir())}
    assert set(page.links) - targets == set()


def test_browsers_find_nothing_that_the_server_forbids(page: Page) -> None:
    assert not page.tags & {"script", "style"}
    assert not [name for name in page.attributes if name == "style" or name.startswith("on")]


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
async def test_the_commands_call_the_server(page: Page, tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name, graph, document in (
        ("resnet50", graphs.classifier(), graphs.classifier_document()),
        ("yolov5n", graphs.constant(graphs.ROWS), graphs.detector_document()),
    ):
        graphs.put(models, name, 1, graphs.export(graph, document)[0])
    (tmp_path / "bus.jpg").write_bytes(pictures.plain(pictures.RED, 64, 64))
    (tmp_path / "protos").symlink_to(PROTOS)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    async with served_by(App(settings(models, http="127.0.0.1:0"))) as served:
        for method in SERVICE.methods:
            url = f"/{SERVICE.full_name}/{method.name}"
            text = page.texts[f"{SERVICE.name}.{method.name}"]
            command = text.partition(f"POST {url}")[2]
            assert f"http://127.0.0.1:8000{url}" in command
            shell = await asyncio.create_subprocess_exec(
                "bash",
                "-c",
                command.replace("127.0.0.1:8000", served.app.http_address or ""),
                stdout=PIPE,
                cwd=tmp_path,
                env=Surroundings.under(tmp_path).environment({"PATH": path}),
            )
            answer, _ = await shell.communicate()
            message = message_factory.GetMessageClass(method.output_type)
            # An error is no message of the method's.
            assert [json_format.ParseDict(each, message()) for each in values(answer.decode())]


@pytest.mark.usefixtures("minimal_surroundings")
def test_the_page_is_what_the_contract_makes_of_it() -> None:
    made = subprocess.run([sys.executable, PROTOS / "reference.py"], check=True, stdout=PIPE)
    assert made.stdout == (WEB / "reference.html").read_bytes()
