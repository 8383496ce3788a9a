"""Heat maps in the SDK and the command: asked for, read, saved and shown."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from visavis import AsyncClient, Client, HeatMap, InvalidRequest
from visavis.results import Box
from visavis.v1 import vision_pb2 as pb

from . import canned
from .fakes import FakeServer

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]


def test_a_map_is_read_as_typed_values(client: Client, fake: FakeServer):
    assert client.classify(b"a", model="m").heat_map is None
    assert client.classify(b"a", model="m", explain=False).heat_map is None
    heat_map = client.classify(b"a", model="m", explain=True).heat_map
    assert isinstance(heat_map, HeatMap)
    assert (heat_map.class_id, heat_map.label) == (7, "bus")
    assert heat_map.values == pytest.approx((-2.5, 0, 1, 2, 3, 60.75))
    assert heat_map.area == Box(100, 50, 400, 250)
    found = client.detect(b"a", model="m", explain="dog")
    assert found.heat_map is not None and found.heat_map.label == "dog"
    answers = client.compare(b"a", explain=True).comparisons[1].answers
    assert [answer.heat_map is not None for answer in answers] == [True, True, False]
    asked = [request.explain for request in fake.requests if request.HasField("explain")]
    assert asked == [pb.Explain(), pb.Explain(label="dog"), pb.Explain()]


async def test_the_asynchronous_client_reads_the_same(client: Client, fake: FakeServer):
    async with AsyncClient(fake.address) as other:
        found = await other.detect(b"a", model="m", explain="dog")
    assert found.heat_map == client.detect(b"a", model="m", explain="dog").heat_map


def test_another_kind_of_request_is_refused(client: Client):
    with pytest.raises(InvalidRequest, match="explain is 3; give True, or a label") as error:
        client.classify(b"a", model="m", explain=3)  # type: ignore[arg-type]
    assert error.value.violations[0].field == "explain"


@pytest.fixture
def heat_map(client: Client, fake: FakeServer) -> HeatMap:
    found = client.classify(b"a", model="m", explain=True).heat_map
    assert found is not None
    return found


def test_numpy_takes_the_values_without_a_copy(heat_map: HeatMap):
    view = heat_map.array()
    values = np.asarray(view)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, np.array([[-2.5, 0, 1], [2, 3, 60.75]], np.float32))
    assert np.shares_memory(values, view)
    assert view[1, 0] == 2


@pytest.mark.parametrize(
    ("point", "value"),
    [
        ((100, 50), -2.5),
        ((199.9, 149.9), -2.5),
        ((200, 50), 0),
        ((399, 249), 60.75),
        ((250, 150), 3),
        ((99.9, 50), None),
        ((400, 100), None),
        ((200, 250), None),
    ],
)
def test_the_value_at_a_point_of_the_picture(
    heat_map: HeatMap, point: tuple[float, float], value: float | None
):
    assert heat_map.value_at(*point) == (None if value is None else pytest.approx(value))


def test_a_saved_map_is_a_grey_picture(heat_map: HeatMap, tmp_path: Path):
    heat_map.save(tmp_path / "map.png")
    with Image.open(io.BytesIO((tmp_path / "map.png").read_bytes())) as picture:
        picture.load()
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (3, 2))
        levels = np.asarray(picture)
    expected = np.rint((np.array([-2.5, 0, 1, 2, 3, 60.75]) + 2.5) / 63.25 * 255)
    np.testing.assert_array_equal(levels.ravel(), expected)


def test_a_flat_map_is_saved_black(tmp_path: Path):
    HeatMap(0, "a", 2, 1, (4.0, 4.0), 4.0, 4.0, Box(0, 0, 1, 1)).save(tmp_path / "map.png")
    assert np.asarray(Image.open(tmp_path / "map.png")).tolist() == [[0, 0]]


def label_asked_for(fake: FakeServer) -> str | None:
    """Return the label of the last request; None: the best one; fail if it asks for no map."""
    request = fake.requests[-1]
    assert request.HasField("explain")
    return request.explain.label if request.explain.HasField("label") else None


@pytest.mark.parametrize("command", ["classify", "detect", "compare"])
def test_explain_takes_a_label_or_none(
    visavis: Command, fake: FakeServer, pictures: list[Path], command: str
):
    model = () if command == "compare" else ("--model", "m")
    assert visavis(command, pictures[0], *model) == 0
    assert not fake.requests[-1].HasField("explain")
    for arguments, label in (
        ((pictures[0], "--explain"), None),
        (("--explain", pictures[0]), None),
        (("--explain", "--json", pictures[0]), None),
        (("--explain", "fire engine", pictures[0]), "fire engine"),
        ((pictures[0], "--explain=bus"), "bus"),
        ((pictures[0], "--explain", "bus"), "bus"),
    ):
        assert visavis(command, *arguments, *model) == 0, arguments
        assert label_asked_for(fake) == label, arguments


def test_the_map_is_named_with_its_scale(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    assert visavis("classify", pictures[0], "--model", "m", "--explain", "fire engine") == 0
    assert "heat map of fire engine: 3 × 2 cells, -2.5 to 60.8" in capsys.readouterr().out
    assert visavis("detect", pictures[0], "--model", "m", "--explain") == 0
    assert "heat map of bus: 3 × 2 cells, -2.5 to 60.8" in capsys.readouterr().out
    assert visavis("compare", pictures[0], "--explain") == 0
    assert "yolov5n, heat map of bus: 3 × 2 cells" in capsys.readouterr().out


def test_a_difference_is_asked_for_with_the_annotated_picture(
    visavis: Command, fake: FakeServer, pictures: list[Path], tmp_path: Path, capsys: Captured
):
    target = tmp_path / "drawn.jpg"
    assert visavis("compare", pictures[0], "--annotate", target, "--difference") == 0
    assert fake.requests[-1].annotate_difference
    assert target.read_bytes() == canned.PICTURE.encoded
    assert visavis("compare", pictures[0], "--annotate", target) == 0
    assert not fake.requests[-1].annotate_difference
    assert visavis("compare", pictures[0], "--difference") == 2
    assert "--annotate FILE.jpg" in capsys.readouterr().err


def test_options_for_pictures_are_refused_for_a_folder(
    visavis: Command, tmp_path: Path, capsys: Captured
):
    (tmp_path / "a.jpg").write_bytes(b"a")
    assert visavis("compare", tmp_path, "--explain", "bus") == 2
    assert "--explain" in capsys.readouterr().err
    assert visavis("compare", tmp_path, "--difference") == 2
    assert "--difference" in capsys.readouterr().err


def test_the_receipt_shows_the_largest_difference_of_maps(
    visavis: Command, fake: FakeServer, capsys: Captured
):
    def receipt_of(**figures):
        card = pb.Model()
        card.CopyFrom(canned.CARDS[0])
        card.receipt.CopyFrom(canned.RECEIPT)
        for part in (card.receipt, *card.receipt.pictures):
            part.ClearField("max_heat_map_difference")
        card.receipt.ClearField("heat_map_tolerance")
        for name, value in figures.items():
            setattr(card.receipt, name, value)
        return card

    def without_maps(request, context):
        return pb.GetModelResponse(model=receipt_of())

    def with_maps(request, context):
        card = receipt_of(heat_map_tolerance=0.001, max_heat_map_difference=3.6e-6)
        card.receipt.pictures[0].max_heat_map_difference = 3.6e-6
        return pb.GetModelResponse(model=card)

    fake.answers["GetModel"] = without_maps
    assert visavis("models", "resnet18") == 0
    assert "heat map" not in capsys.readouterr().out
    fake.answers["GetModel"] = with_maps
    assert visavis("models", "resnet18") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "heat map 3.6e-06 (limit 0.001)." in shown
    assert "3.6e-06" in shown.split("map diff")[-1]
