"""Run the scenario of clients/README.md against a visavis server."""

import json
import sys
from pathlib import Path

from visavis import (
    TLS,
    AccessDenied,
    Client,
    Comparison,
    DeadlineExceeded,
    InvalidRequest,
    Task,
    VisavisError,
)
from visavis.results import ClassificationAgreement, DetectionAgreement, ModelAnswer

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

    try:
        headers = {"x-request-id": "scenario"}
        client.classify(picture, model="resnet50", top_k=0, headers=headers)
    except InvalidRequest as error:
        say("error", code=error.code, field=error.field, request_id=error.request_id)


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
