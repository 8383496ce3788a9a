"""Run the scenario of clients/README.md against a visavis server."""

import json
import sys
from pathlib import Path
from typing import Any

import grpc
from visavis import TLS, AccessDenied, Client, Comparison, DeadlineExceeded, Task, VisavisError
from visavis.calls import classify_request
from visavis.results import ClassificationAgreement, DetectionAgreement, ModelAnswer
from visavis.statuses import from_rpc_error
from visavis.v1.vision_pb2_grpc import VisionServiceStub

PATIENCE_S = 30.0
TASK_NAMES = {Task.CLASSIFICATION: "classification", Task.DETECTION: "object detection"}


def main() -> None:
    """Run all steps; exit with 1 if one fails."""
    match sys.argv[1:]:
        case [server, picture, *tls] if len(tls) in (0, 3):
            try:
                encoded = Path(picture).read_bytes()
                with Client(server, timeout=PATIENCE_S) as client:
                    ask(client, encoded)
                be_refused(server, encoded)
                if tls:
                    list_over_tls(*tls)
            except (VisavisError, OSError) as error:
                sys.exit(f"scenario: {error}")
        case _:
            sys.exit("usage: scenario SERVER PICTURE [TLS_SERVER CA_FILE TOKEN]")


def ask(client: Client, picture: bytes) -> None:
    """Make every call that must succeed."""
    client.wait_until_ready()
    say("health", status="SERVING")

    models = [
        {
            "name": card.name,
            "task": TASK_NAMES[card.tasks[0]],
            "precision": card.precision,
            "random_weights": card.random_weights,
        }
        for card in client.list_models()
    ]
    say("list", models=models)

    classified = client.classify(picture, model="resnet50", top_k=3)
    labels = [
        {"label": found.label, "score": round(found.score, 4)}
        for found in classified.classifications
    ]
    say("classify", model=classified.served_by.model, labels=labels)

    detected = client.detect(picture, model="yolov5n", score_threshold=0.4)
    detections = [
        {
            "label": found.label,
            "score": round(found.score, 4),
            "box": [round(edge, 1) for edge in found.box.xyxy],
        }
        for found in detected.detections
    ]
    say("detect", model=detected.served_by.model, detections=detections)

    for event in client.compare_stream(picture):
        if isinstance(event, Comparison):
            for comparison in event.comparisons:
                task = TASK_NAMES[comparison.task]
                for answer in comparison.answers:
                    model = answer.served_by.model
                    say("compare", task=task, model=model, agreement=agreement(answer))
        else:
            answer = event.answer
            answers = len(answer.classifications) + len(answer.detections)
            say("compare", arrived=answer.served_by.model, answers=answers)

    try:
        client.classify(picture, model="resnet50", timeout=0.001)
    except DeadlineExceeded as error:
        say("deadline", code=error.code)


def agreement(answer: ModelAnswer) -> dict[str, object] | None:
    """Return the agreement of an answer with the baseline's; None if it has none."""
    match answer.agreement:
        case ClassificationAgreement() as of:
            return {"same_top1": of.same_top1, "top_k_overlap": round(of.top_k_overlap, 4)}
        case DetectionAgreement() as of:
            return {
                "matched": of.matched,
                "only_here": of.only_here,
                "only_in_baseline": of.only_in_baseline,
                "f1": round(of.f1, 4),
            }
    return None


def be_refused(server: str, picture: bytes) -> None:
    """Print the details of an error.

    The client sends no request ids, so this step uses the generated stub.
    """
    request = classify_request(picture, model="resnet50", top_k=0)
    metadata = [("x-request-id", "scenario")]
    with grpc.insecure_channel(server) as channel:
        # The generated stubs have no types.
        stub: Any = VisionServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            stub.Classify(request, timeout=PATIENCE_S, metadata=metadata)
        except grpc.RpcError as error:
            refused = from_rpc_error(error, server, PATIENCE_S)
            say("error", code=refused.code, field=refused.field, request_id=refused.request_id)


def list_over_tls(server: str, ca_file: str, token: str) -> None:
    """List the models over TLS, with a token and without."""
    tls = TLS(root_certificates=ca_file)
    with Client(server, tls=tls, token=token) as client:
        models = len(client.list_models())
    with Client(server, tls=tls) as stranger:
        try:
            stranger.list_models()
        except AccessDenied as error:
            say("tls", models=models, without_token=error.code)


def say(step: str, **learned: object) -> None:
    """Print one line of JSON."""
    line = json.dumps({"step": step, **learned}, ensure_ascii=False, separators=(",", ":"))
    print(line, flush=True)


if __name__ == "__main__":
    main()
