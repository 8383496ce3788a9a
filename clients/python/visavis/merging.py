"""Comparisons of several servers as one: models of a peer are called MODEL@PEER."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.rpc import code_pb2  # Ships no py.typed.

from visavis.agreement import classification_agreement, detection_agreement, shared_names
from visavis.errors import FieldViolation, InvalidRequest, InvalidSettings, VisavisError
from visavis.v1 import vision_pb2 as pb

MAIN: Final = ""
"""The name of the server whose models keep their names."""

ALL_LABELS: Final = 32_768
"""More labels than any model has: the divergence needs all of them."""

_DEFAULT_TOP_K: Final = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of a comparison; empty or None: the server's defaults."""

    models: Sequence[str] = ()
    tasks: Sequence[pb.Task] = ()
    baseline: str | None = None
    top_k: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One server's comparison, or its error; cards: its models as far as they are known."""

    answer: pb.CompareResponse | VisavisError
    cards: Sequence[pb.Model] = ()


def qualified(model: str, server: str) -> str:
    """Return the name of a server's model among those of all servers."""
    return model if server == MAIN else f"{model}@{server}"


def asked_of(server: str, models: Sequence[str]) -> list[str] | None:
    """Return the names to ask a server for; empty: all of them; None: it is not asked at all."""
    if not models:
        return []
    split = [name.rpartition("@") if "@" in name else (name, "", MAIN) for name in models]
    return [model for model, _, of in split if of == server] or None


def renamed(card: pb.Model, server: str) -> pb.Model:
    """Return a card under its name among the models of all servers."""
    copy = pb.Model()
    copy.CopyFrom(card)
    copy.name = qualified(card.name, server)
    if card.variant_of:
        copy.variant_of = qualified(card.variant_of, server)
    return copy


def merged(
    outcomes: Mapping[str, Outcome],
    asked: Asked,
    label_sets: Mapping[str, pb.LabelSet] | None = None,
) -> pb.CompareResponse:
    """Return the comparison of all servers, by server name.

    label_sets: of each model, with its labels, for the agreements; the classifiers' answers must
    then have all labels, of which top_k are kept. None: agreements are not computed. Raises as
    `_first` does, and InvalidRequest if the baseline is not among the models.
    """
    answered = {
        name: one.answer
        for name, one in outcomes.items()
        if isinstance(one.answer, pb.CompareResponse)
    }
    first = _first(outcomes)
    response = pb.CompareResponse(image_size=first.image_size, timings=first.timings)
    for server, one in outcomes.items():
        cards = answered[server].models if server in answered else one.cards
        response.models.extend(renamed(card, server) for card in cards)
        response.left_out.extend(_left_out(server, one, asked))
    for task in (pb.TASK_CLASSIFICATION, pb.TASK_OBJECT_DETECTION):
        answers = _ordered(list(_answers(task, outcomes, asked)), asked.models)
        if answers:
            response.comparisons.append(_compared(task, answers, label_sets, asked))
    if asked.baseline is not None:
        _require_baseline(response, asked.baseline)
    return response


def _first(outcomes: Mapping[str, Outcome]) -> pb.CompareResponse:
    """Return the first answer that tells the picture's size.

    Raises the first server's error, or InvalidSettings if all answers are by the Open Inference
    Protocol.
    """
    found = [one.answer for one in outcomes.values()]
    for answer in found:
        if isinstance(answer, pb.CompareResponse) and answer.image_size.width:
            return answer
    for answer in found:
        if isinstance(answer, VisavisError):
            raise answer
    raise InvalidSettings(
        "the Open Inference Protocol does not tell a picture's size: compare at least one model of "
        "a visavis server"
    )


def _answers(
    task: pb.Task, outcomes: Mapping[str, Outcome], asked: Asked
) -> Iterator[pb.ModelAnswer]:
    for server, one in outcomes.items():
        if isinstance(one.answer, VisavisError):
            yield from _failures(task, server, one, asked)
            continue
        for comparison in one.answer.comparisons:
            if comparison.task == task:
                for answer in comparison.answers:
                    copy = pb.ModelAnswer()
                    copy.CopyFrom(answer)
                    copy.ClearField("agreement")
                    copy.served_by.model = qualified(answer.served_by.model, server)
                    if server != MAIN and answer.HasField("timings"):
                        # A peer decodes the picture itself.
                        copy.timings.decode_ms = one.answer.timings.decode_ms
                    yield copy


def _failures(task: pb.Task, server: str, one: Outcome, asked: Asked) -> Iterator[pb.ModelAnswer]:
    """Yield the answers of a server that failed: its error as the status of each of its models."""
    assert isinstance(one.answer, VisavisError)
    for card in _chosen(server, one.cards, asked):
        if task in card.tasks:
            yield pb.ModelAnswer(
                served_by=pb.ServedBy(
                    model=qualified(card.name, server),
                    version=card.version,
                    precision=card.precision,
                    execution_provider=card.execution_provider,
                    random_weights=card.random_weights,
                ),
                status=pb.AnswerStatus(
                    code=code_pb2.Code.Value(one.answer.code)
                    if one.answer.code in code_pb2.Code.keys()  # noqa: SIM118  an enum, no dict
                    else code_pb2.UNKNOWN,
                    message=one.answer.message,
                ),
            )


def _chosen(server: str, cards: Sequence[pb.Model], asked: Asked) -> list[pb.Model]:
    names = asked_of(server, asked.models)
    return [
        card
        for card in cards
        if (not names or card.name in names)
        and (not asked.tasks or set(card.tasks) & set(asked.tasks))
    ]


def _left_out(server: str, one: Outcome, asked: Asked) -> Iterator[pb.LeftOutModel]:
    if isinstance(one.answer, pb.CompareResponse):
        for left in one.answer.left_out:
            # Models of another server that were asked for by name are not left out of this one.
            yield pb.LeftOutModel(model=qualified(left.model, server), reason=left.reason)
    elif not _chosen(server, one.cards, asked):
        names = asked_of(server, asked.models) or ["its models"]
        for name in names:
            yield pb.LeftOutModel(
                model=qualified(name, server), reason=f"{one.answer.code}: {one.answer.message}"
            )


def _ordered(answers: list[pb.ModelAnswer], models: Sequence[str]) -> list[pb.ModelAnswer]:
    """Return the answers in the order of the request's models, else of the servers."""
    place = {name: index for index, name in enumerate(dict.fromkeys(models))}
    return sorted(answers, key=lambda one: place.get(one.served_by.model, len(place)))


def _compared(
    task: pb.Task,
    answers: list[pb.ModelAnswer],
    label_sets: Mapping[str, pb.LabelSet] | None,
    asked: Asked,
) -> pb.TaskComparison:
    names = [answer.served_by.model for answer in answers]
    baseline = asked.baseline if asked.baseline in names else names[0]
    (base,) = [one for one in answers if one.served_by.model == baseline]
    top_k = asked.top_k or _DEFAULT_TOP_K
    if label_sets is not None:
        for answer in answers:
            if answer is not base and not (answer.status.code or base.status.code):
                _agree(task, answer, base, label_sets, top_k)
        for answer in answers:
            del answer.classifications[top_k:]
    return pb.TaskComparison(
        task=task,
        baseline=baseline or "",
        answers=answers,
        nothing_to_compare=""
        if len(answers) > 1
        else f"nothing to compare with: {baseline} is the only model for this task",
    )


def _agree(
    task: pb.Task,
    answer: pb.ModelAnswer,
    base: pb.ModelAnswer,
    label_sets: Mapping[str, pb.LabelSet],
    top_k: int,
) -> None:
    here, there = (label_sets.get(each.served_by.model) for each in (answer, base))
    if here is None or there is None:
        return
    names = shared_names(here, there)
    if task == pb.TASK_CLASSIFICATION:
        answer.classification_agreement.CopyFrom(
            classification_agreement(
                answer.classifications, base.classifications, top_k, len(here.labels), names
            )
        )
    else:
        answer.detection_agreement.CopyFrom(
            detection_agreement(answer.detections, base.detections, names)
        )


def _require_baseline(response: pb.CompareResponse, baseline: str) -> None:
    names = {a.served_by.model for task in response.comparisons for a in task.answers}
    if baseline not in names:
        message = (
            f"baseline {baseline[:128]!r} is not among the models compared: "
            f"{', '.join(sorted(names))}"
        )
        raise InvalidRequest(message, violations=(FieldViolation("baseline", message),))
