"""gRPC-Web in a real browser, beside the page: the same answers as gRPC's and JSON's."""

import base64
from pathlib import Path

from google.protobuf import json_format
from visavis import Client
from visavis.v1 import vision_pb2 as pb

from .page import Page

TRAILERS = 0x80


def test_a_browser_gets_the_same_by_grpc_web_as_by_grpc_and_json(
    page: Page, picture: Path, client: Client
) -> None:
    request = pb.DetectRequest(image=pb.Image(encoded=picture.read_bytes()), model="boxes")
    message = request.SerializeToString()
    frame = bytes(1) + len(message).to_bytes(4, "big") + message
    answer, as_json = page.evaluate(
        """async ([frame, picture]) => {
            const path = "visavis.v1.VisionService/Detect";
            const bytes = Uint8Array.from(atob(frame), (letter) => letter.charCodeAt(0));
            const answer = await fetch(path, {
                method: "POST",
                headers: { "content-type": "application/grpc-web+proto", "x-grpc-web": "1" },
                body: bytes,
            });
            const answered = new Uint8Array(await answer.arrayBuffer());
            const asJson = await fetch(path, {
                method: "POST",
                headers: { "content-type": "application/json" },
                body: JSON.stringify({ image: { encoded: picture }, model: "boxes" }),
            });
            return [btoa(String.fromCharCode(...answered)), await asJson.json()];
        }""",
        [base64.b64encode(part).decode() for part in (frame, picture.read_bytes())],
    )
    frames = dict(unframed(base64.b64decode(answer)))
    assert b"grpc-status: 0" in frames[TRAILERS]
    detections = pb.DetectResponse.FromString(frames[0]).detections
    assert list(detections) == list(client.detect(picture, model="boxes").message.detections)
    from_json = json_format.ParseDict(as_json, pb.DetectResponse()).detections
    assert list(detections) == list(from_json)


def unframed(stream: bytes) -> list[tuple[int, bytes]]:
    """Return the frames of an answer, each with its flags."""
    frames = []
    while stream:
        end = 5 + int.from_bytes(stream[1:5], "big")
        frames.append((stream[0], stream[5:end]))
        stream = stream[end:]
    return frames
