"""Whether what is served is right: as the cards say, which the export writes."""

from collections.abc import Callable, Sequence

from .site import CLASSIFY, DETECT, INT8, NotRun, Site
from .targets import Measurement, Result, at_most


def _fp32(site: Site) -> Sequence[Result]:
    with site.server(site.fp32) as (_, _, client):
        cards = [client.get_model(name) for name in (*CLASSIFY, *DETECT)]
    differences = {card.name: card.receipt.max_score_difference for card in cards if card.receipt}
    worst = max(differences.values())
    each = ", ".join(f"{name} {difference:.1g}" for name, difference in differences.items())
    return [Result(worst, f"largest difference of a score **{worst:.1g}** ({each})")]


def _int8(names: tuple[str, ...]) -> Callable[[Site], Sequence[Result]]:
    def measure(site: Site) -> Sequence[Result]:
        with site.server(site.int8) as (_, _, client):
            accuracy = client.get_model(INT8[names[0]]).accuracy
        if accuracy is None:
            raise NotRun("the card holds no accuracy: it was exported without labelled pictures")
        lost = (accuracy.original - accuracy.value) * 100
        held_out = "" if accuracy.held_out else ", among them those of the calibration"
        return [
            Result(
                lost,
                f"**{lost:.2f} points** ({accuracy.metric} {accuracy.value:.3f} against "
                f"{accuracy.original:.3f} on {accuracy.pictures} pictures{held_out})",
            )
        ]

    return measure


MEASUREMENTS = (
    Measurement(
        "accuracy-fp32",
        (at_most("Accuracy, fp32, against PyTorch", 0.001, "exact: scores within 0.001"),),
        _fp32,
    ),
    Measurement(
        "accuracy-classify-int8",
        (at_most("Accuracy lost, ResNet-50 int8", 0.5, "at most 0.5 points of top-1"),),
        _int8(CLASSIFY),
    ),
    Measurement(
        "accuracy-detect-int8",
        (at_most("Accuracy lost, YOLOv5n int8", 1.0, "at most 1 point of mAP50-95"),),
        _int8(DETECT),
    ),
)
