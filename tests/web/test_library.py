"""The TypeScript library in a real browser: bundled from its package, against a server's HTTP."""

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest
from visavis import Client, Comparison

from tests import npm

from .page import Page

# Every call, as a page makes it; what the page must not see is an error.
USE = """async ([protocol, picture]) => {
    const { VisavisClient } = visavis;
    const client = new VisavisClient({ protocol, timeoutMs: 20_000 });
    await client.waitUntilReady();
    const bytes = Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0));
    const file = new File([bytes], "picture.png", { type: "image/png" });
    const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
    const context = canvas.getContext("2d");
    context.fillStyle = "rgb(200, 120, 90)";
    context.fillRect(0, 0, 64, 48);
    const pixels = context.getImageData(0, 0, 64, 48);
    const events = [];
    for await (const event of client.compareStream(file)) events.push(event);
    return {
        models: (await client.models()).map(({ name }) => name),
        card: (await client.model("boxes")).labelSet.labels,
        detections: (await client.detect(file, { model: "boxes" })).detections,
        labels: (await client.classify(file, { model: "colors" })).classifications,
        drawn: (await client.classify(pixels, { model: "colors" })).classifications,
        events: events.map(({ type }) => type),
        comparison: events.at(-1).comparison,
    };
}"""
REFUSE = """async ([protocol]) => {
    const { VisavisClient, VisavisError } = visavis;
    const client = new VisavisClient({ protocol });
    const image = new Uint8Array([1, 2, 3]);
    const refusal = async (call) => {
        try { await call(); } catch (error) {
            return [error instanceof VisavisError, error.code, error.field ?? ""];
        }
    };
    const own = new AbortController();
    own.abort();
    return [
        await refusal(() => client.classify(image, { model: "colors" })),
        await refusal(() => client.model("nothing")),
        await refusal(() => client.models({ signal: own.signal })),
        await refusal(() => new VisavisClient({ address: "localhost:1" })),
        await refusal(() => new VisavisClient({ tls: true })),
    ];
}"""


@pytest.fixture(scope="module")
def bundle(npm_project: Path) -> str:
    """The package as a page loads it: a bundler finds its browser build, and nothing of Node's."""
    return subprocess.run(
        [npm.tool("esbuild"), "browser.js", "--bundle", "--format=iife", "--log-level=warning"],
        cwd=npm_project,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture
def loaded(page: Page, bundle: str) -> Page:
    page.evaluate("(script) => { (0, eval)(script); }", bundle)
    return page


@pytest.mark.parametrize("protocol", ["connect", "grpc-web"])
def test_a_page_gets_the_same_answers_as_a_program_by_grpc(
    loaded: Page, picture: Path, client: Client, protocol: str
) -> None:
    encoded = base64.b64encode(picture.read_bytes()).decode()
    seen: dict[str, Any] = loaded.evaluate(USE, [protocol, encoded])
    assert seen["models"] == [card.name for card in client.list_models()]
    assert seen["card"] == list(client.get_model("boxes").label_set.labels)
    for shown, found in zip(
        seen["detections"], client.detect(picture, model="boxes").detections, strict=True
    ):
        assert tuple(shown["box"].values()) == found.box.xyxy
        assert (shown["label"], shown["score"]) == (found.label, found.score)
    expected = [
        (found.label, found.score)
        for found in client.classify(picture, model="colors").classifications
    ]
    for shown in (seen["labels"], seen["drawn"]):
        assert [(found["label"], found["score"]) for found in shown] == expected
    *answers, whole = client.compare_stream(picture)
    assert isinstance(whole, Comparison)
    assert seen["events"] == ["answer"] * len(answers) + ["comparison"]
    shown_f1 = [
        answer["agreement"]["f1"]
        for task in seen["comparison"]["comparisons"]
        for answer in task["answers"]
        if answer.get("agreement", {}).get("kind") == "detection"
    ]
    assert shown_f1 == whole.to_pandas()["f1"].dropna().tolist()


@pytest.mark.parametrize("protocol", ["connect", "grpc-web"])
def test_a_page_gets_typed_errors(loaded: Page, protocol: str) -> None:
    seen = loaded.evaluate(REFUSE, [protocol])
    assert seen == [
        [True, "INVALID_ARGUMENT", "image.encoded"],
        [True, "NOT_FOUND", "model"],
        [True, "CANCELLED", ""],
        [True, "INVALID_ARGUMENT", "address"],
        [True, "INVALID_ARGUMENT", "tls"],
    ]
    if protocol == "connect":  # gRPC-Web's errors come with HTTP 200.
        loaded.expected_troubles += [
            "Failed to load resource: the server responded with a status of 400 (Bad Request)",
            "Failed to load resource: the server responded with a status of 404 (Not Found)",
        ]
