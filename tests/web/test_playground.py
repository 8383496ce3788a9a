"""The playground in a real Chromium: it shows what the server answers over gRPC."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from visavis import Client
from visavis.results import DetectionAgreement, ModelAnswer

from tests.server.pictures import EXIF_BLOCKS, block, entry, with_exif
from visavis_server.settings import ImageLimits
from visavis_server.transport.tokens import new_token
from visavis_server.vision.image import decode

from .conftest import Open, Playground, painted
from .page import Page

CLASSIFICATION, DETECTION = "TASK_CLASSIFICATION", "TASK_OBJECT_DETECTION"
# In pixels of the picture, which is shown at half its size.
DRAWN_WITHIN = 2.5
# Returns the colours near the four corners of the picture that the page shows.
PIXELS = """async () => {
  const image = document.getElementById("thumbnail");
  await image.decode();
  const { naturalWidth: w, naturalHeight: h } = image;
  const context = new OffscreenCanvas(w, h).getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, w, h);
  return [[2, 2], [w - 3, 2], [2, h - 3], [w - 3, h - 3]].map(
    ([x, y]) => [...data.slice(4 * (y * w + x), 4 * (y * w + x) + 3)]);
}"""
Seen = dict[str, Any]


def panel(seen: Seen, task: str, model: str) -> Seen:
    found: Seen = seen["tasks"][task]["panels"][model]
    return found


def detectors(client: Client, picture: Path, **options: float) -> dict[str, ModelAnswer]:
    """Return what detectors answer over gRPC, by model."""
    (compared,) = client.compare(picture, tasks=["detection"], **options).comparisons
    return {answer.served_by.model: answer for answer in compared.answers}


def assert_shows_boxes(seen: Seen, answers: dict[str, ModelAnswer]) -> None:
    """Assert that all boxes are listed, and drawn where they are, and agreement is told."""
    theirs = answers["boxes"].detections
    for model, answer in answers.items():
        shown, found = panel(seen, DETECTION, model), answer.detections
        rows = [row for row in shown["rows"] if model == "boxes" or row[0] != "−"]
        boxes = [box for box in shown["boxes"] if model == "boxes" or box["kind"] != "baseline"]
        assert [row[1:3] for row in rows] == [[d.label, f"{d.score:.3f}"] for d in found]
        drawn = sorted(box["edges"] for box in boxes)
        for edges, of in zip(drawn, sorted(d.box.xyxy for d in found), strict=True):
            assert edges == pytest.approx(of, abs=DRAWN_WITHIN)
        if (agreement := answer.agreement) is None:
            continue
        assert f"F1 {agreement.f1:.3f} with boxes" in shown["text"]
        assert f"= {agreement.matched} match + {agreement.only_here} only here" in shown["text"]
        assert f"− {agreement.only_in_baseline} only in boxes" in shown["text"]
        ious = {match.index: f"{match.iou:.3f}" for match in agreement.matches}
        assert [row[3] for row in rows] == [ious.get(index, "") for index in range(len(rows))]
        matched = {match.baseline_index for match in agreement.matches}
        missed = [found.label for index, found in enumerate(theirs) if index not in matched]
        assert [row[1] for row in shown["rows"] if row[0] == "−"] == missed


def test_a_picture_that_is_chosen_is_answered_by_all_models(
    page: Page, picture: Path, client: Client
) -> None:
    seen = page.pick(picture)
    assert "warm.png 640 × 480 px" in seen["picture"]
    assert re.fullmatch(r"5 models answered in .* ms \(decoding .* ms\)", seen["status"])
    assert_shows_boxes(seen, detectors(client, picture))
    (compared,) = client.compare(picture, tasks=["classification"]).comparisons
    for answer in compared.answers:
        shown = panel(seen, CLASSIFICATION, answer.served_by.model)
        assert shown["bars"] == [["=", c.label, f"{c.score:.3f}"] for c in answer.classifications]
        if answer.agreement:
            assert "Same top label as colors 100 % of the first 3 in common" in shown["text"]
            divergence = answer.agreement.jensen_shannon_divergence
            assert f"divergence {divergence:.3f}" in shown["text"]
        assert re.search(r"waiting .* ms preparing .* ms inference .* ms", shown["text"])


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_picture_can_be_dropped_and_pasted(
    page: Page, picture: Path, client: Client, how: str
) -> None:
    page.give(how, picture)
    assert_shows_boxes(page.answered(), detectors(client, picture))


def test_a_picture_that_lies_on_its_side_is_shown_as_the_server_sees_it(
    page: Page, tmp_path: Path, client: Client
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees
    sideways = tmp_path / "sideways.jpg"
    Image.new("RGB", (640, 480), (200, 120, 90)).save(sideways, exif=exif)
    seen = page.pick(sideways)
    assert "480 × 640 px" in seen["picture"]
    assert_shows_boxes(seen, detectors(client, sideways))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_odd_exif_turns_the_picture_on_the_page_as_the_server_turns_it(
    page: Page, tmp_path: Path, form: str
) -> None:
    for number, (blocks, turned) in enumerate(EXIF_BLOCKS):
        file = tmp_path / f"odd{number}.{form.lower()}"
        file.write_bytes(with_exif(form, *blocks))
        page.do("choose", selector="#pick", file=str(file))
        page.until(f"document.getElementById('picture-name').textContent === {file.name!r}")
        seen = page.look()
        assert ("10 × 20 px" if turned else "20 × 10 px") in seen["picture"], number


@pytest.mark.parametrize("turn", range(1, 9))
def test_pixels_are_turned_on_the_page_as_the_server_turns_them(
    page: Page, tmp_path: Path, turn: int
) -> None:
    colors = np.zeros((2, 2, 3), np.uint8)
    colors[0, 0, 0] = colors[0, 1, 1] = colors[1, 0, 2] = 255
    data = with_exif("PNG", block(entry(turn, kind=4)), picture=colors.repeat(20, 0).repeat(10, 1))
    (tmp_path / "a.png").write_bytes(data)
    page.pick(tmp_path / "a.png")
    expected = decode(data, ImageLimits())
    height, width = expected.shape[:2]
    shown = page.evaluate(PIXELS)
    for at, (y, x) in enumerate(((2, 2), (2, width - 3), (height - 3, 2), (height - 3, width - 3))):
        assert shown[at] == expected[y, x].tolist(), at


def test_what_the_server_does_not_read_is_sent_as_png(
    page: Page, tmp_path: Path, client: Client
) -> None:
    bitmap = painted(tmp_path / "warm.bmp", (640, 480), (200, 120, 90))
    same = painted(tmp_path / "warm.png", (640, 480), (200, 120, 90))
    seen = page.pick(bitmap)
    assert "warm.bmp.png" in seen["picture"]
    assert_shows_boxes(seen, detectors(client, same))


def test_a_picture_of_24_megapixels_is_answered(page: Page, tmp_path: Path) -> None:
    seen = page.pick(painted(tmp_path / "large.png", (6000, 4000), (200, 120, 90)))
    assert "6000 × 4000 px" in seen["picture"]
    assert len(panel(seen, DETECTION, "boxes")["rows"]) == 2


def test_answers_are_shown_as_they_arrive(
    open_page: Open, odd_playground: Playground, picture: Path
) -> None:
    page = open_page(odd_playground.url)
    page.evaluate(
        """() => {
            window.steps = [];
            new MutationObserver(() => {
                const state = (model) =>
                    document.querySelector(`[data-model=${model}]`)?.dataset.state;
                window.steps.push([state("colors"), state("slow")].join(" "));
            }).observe(document.getElementById("status"), { childList: true });
        }"""
    )
    page.pick(picture)
    steps = dict.fromkeys(page.evaluate("() => window.steps"))
    assert list(steps) == ["waiting waiting", "answered waiting", "answered answered"]


def test_of_two_pictures_the_later_is_answered(
    open_page: Open, odd_playground: Playground, tmp_path: Path
) -> None:
    page = open_page(odd_playground.url)
    for color, value in {"red": (250, 0, 0), "green": (0, 250, 0)}.items():
        page.give("drop", painted(tmp_path / f"{color}.png", (640, 480), value))
    page.until("document.querySelector('.about').innerText.includes('green')")
    seen = page.answered()
    for model in ("colors", "slow"):
        assert panel(seen, CLASSIFICATION, model)["bars"][0][1] == "green"


def test_the_score_slider_asks_nobody_and_shows_what_the_server_would_answer(
    page: Page, picture: Path, client: Client
) -> None:
    page.pick(picture)
    asked = len(page.asked)
    for threshold in (0.45, 0.63, 0.86, 0.05):
        seen = page.slide("Score above", threshold)
        assert_shows_boxes(seen, detectors(client, picture, score_threshold=threshold))
    assert len(page.asked) == asked


def test_the_labels_slider_asks_nobody(page: Page, picture: Path, client: Client) -> None:
    page.pick(picture)
    asked = len(page.asked)
    seen = page.slide("Labels", 1)
    (best,) = client.classify(picture, model="colors", top_k=1).classifications
    assert panel(seen, CLASSIFICATION, "colors")["bars"] == [["=", best.label, f"{best.score:.3f}"]]
    assert "100 % of the first 1" in panel(seen, CLASSIFICATION, "colors-soft")["text"]
    assert len(page.asked) == asked


def test_the_iou_slider_asks_once_and_shows_what_the_server_answers(
    page: Page, picture: Path, client: Client
) -> None:
    page.pick(picture)
    asked = len(page.asked)
    page.evaluate(
        """() => {
            const slider = document.querySelectorAll("[data-task$=DETECTION] [type=range]")[1];
            for (const threshold of [0.55, 0.6, 0.7]) {
                slider.value = threshold;
                slider.dispatchEvent(new Event("input", { bubbles: true }));
            }
        }"""
    )
    page.until("document.querySelectorAll('[data-model=boxes] tbody tr').length === 3")
    assert_shows_boxes(page.answered(), detectors(client, picture, iou_threshold=0.7))
    (last,) = page.asked[asked:]
    assert last["iouThreshold"] == 0.7


def test_a_slider_that_is_reset_leaves_thresholds_to_the_models(
    open_page: Open, odd_playground: Playground, picture: Path
) -> None:
    page = open_page(odd_playground.url)
    labels = [row[1] for row in panel(page.pick(picture), DETECTION, "boxes")["rows"]]
    assert labels == ["cat"]  # the model's own threshold is 0.5
    seen = page.slide("Score above", 0.3)
    assert [row[1] for row in panel(seen, DETECTION, "boxes")["rows"]] == ["cat", "dog"]
    page.do("click", selector="role=button[name='Reset: Score above']")
    assert [row[1] for row in panel(page.look(), DETECTION, "boxes")["rows"]] == ["cat"]


def test_pointing_at_a_box_lights_up_its_pair(page: Page, picture: Path) -> None:
    page.pick(picture)
    page.do("hover", selector="[data-model=boxes-other] .box[data-kind=both]")
    for model in ("boxes", "boxes-other"):
        shown = panel(page.look(), DETECTION, model)
        assert [box["kind"] for box in shown["boxes"] if box["isLit"]] == ["both"]
        assert len(shown["litRows"]) == 1
    page.do("hover", selector="[data-model=boxes-other] .box[data-kind=here]")
    assert not panel(page.look(), DETECTION, "boxes")["litRows"]
    # What is missed here lights up where it was found.
    page.do("hover", selector="[data-model=boxes-other] .box[data-kind=baseline]")
    (row,) = panel(page.look(), DETECTION, "boxes")["litRows"]
    assert "dog" in row


def test_what_only_one_model_sees_differs_in_line_and_mark(page: Page, picture: Path) -> None:
    shown = panel(page.pick(picture), DETECTION, "boxes-other")["boxes"]
    looks = {(box["kind"], box["line"], box["tag"][0]) for box in shown}
    assert looks == {
        ("both", "solid", "="),
        ("here", "dashed", "+"),
        ("baseline", "dotted", "−"),
    }


def test_another_baseline_is_asked_for(page: Page, picture: Path, client: Client) -> None:
    page.pick(picture)
    page.do("select", selector=f"[data-task={DETECTION}] select", value="boxes-other")
    page.until("document.querySelector('[data-model=boxes]').innerText.includes('F1')")
    page.answered()
    page.do("select", selector=f"[data-task={CLASSIFICATION}] select", value="colors-soft")
    page.until("document.querySelector('[data-model=colors]').innerText.includes('divergence')")
    seen = page.answered()
    for task, model, baseline in (
        (DETECTION, "boxes", "boxes-other"),
        (CLASSIFICATION, "colors", "colors-soft"),
    ):
        (compared,) = client.compare(
            picture, models=[baseline, model], tasks=[], baseline=baseline
        ).comparisons
        agreement = compared.answers[1].agreement
        text = panel(seen, task, model)["text"]
        if isinstance(agreement, DetectionAgreement):
            assert f"F1 {agreement.f1:.3f} with boxes-other" in text
        else:
            assert "Same top label as colors-soft" in text
            assert f"divergence {agreement.jensen_shannon_divergence:.3f}" in text
        assert next(iter(seen["tasks"][task]["panels"])) == baseline


def test_only_what_is_chosen_is_asked(page: Page, picture: Path) -> None:
    page.pick(picture)
    page.do("click", selector="role=checkbox[name=Classification]")
    page.do("click", selector="role=checkbox[name=/boxes-other/]")
    page.until(f"!document.querySelector('[data-task={DETECTION}] [data-model=boxes-other]')")
    seen = page.answered()
    assert list(seen["tasks"]) == [DETECTION]
    assert "nothing to compare with: boxes is the only" in seen["tasks"][DETECTION]["alone"]
    assert "Left out: boxes-other, not among the requested models" in seen["leftOut"]
    asked = page.asked[-1]
    assert (asked["tasks"], asked["models"]) == ([DETECTION], ["boxes"])
    page.do("click", selector="role=checkbox[name=/boxes fp32/]")
    page.until("document.getElementById('status').innerText === 'Choose a model.'")


def test_one_model_that_fails_leaves_the_others(page: Page, tmp_path: Path) -> None:
    seen = page.pick(painted(tmp_path / "night.png", (640, 480), (5, 5, 5)))
    assert seen["status"].startswith("4 of 5 models answered in")
    failed = panel(seen, CLASSIFICATION, "colors-fragile")
    assert failed["state"] == "failed"
    assert "Failed: the model computed NaN or infinity for this image" in failed["text"]
    assert len(panel(seen, CLASSIFICATION, "colors")["bars"]) == 3
    assert "Same top label as colors" in panel(seen, CLASSIFICATION, "colors-soft")["text"]


def test_random_weights_are_marked(
    open_page: Open, odd_playground: Playground, picture: Path
) -> None:
    seen = open_page(odd_playground.url).pick(picture)
    assert seen["notice"] == ["Random weights: the answers of boxes are meaningless."]
    assert "random weights" in panel(seen, DETECTION, "boxes")["text"]
    assert "random weights" not in panel(seen, CLASSIFICATION, "colors")["text"]


def test_a_picture_that_is_refused_says_why(page: Page, tmp_path: Path) -> None:
    wide = painted(tmp_path / "wide.png", (9000, 9000), (1, 2, 3))
    page.do("choose", selector="#pick", file=str(wide))
    assert re.search(r"limit.* invalid_argument, request [0-9a-f]{32}", page.trouble())
    assert page.look()["tasks"] == {}


def test_what_is_no_picture_is_not_sent(page: Page, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    page.do("choose", selector="#pick", file=str(text))
    assert page.trouble() == "This browser can’t show notes.txt as a picture"
    assert [call["method"] for call in page.asked] == ["ListModels"]


def test_a_server_that_has_gone_is_told_of(
    open_page: Open, models: Path, tmp_path: Path, picture: Path
) -> None:
    with Playground(models, tmp_path / "short") as server:
        page = open_page(server.url)
        page.pick(picture)
        rows = panel(page.look(), DETECTION, "boxes")["rows"]
    page.do("click", selector="role=button[name='Ask again']")
    assert page.trouble() == "The server can’t be reached; is it still running?"
    assert panel(page.look(), DETECTION, "boxes")["rows"] == rows
    page.expected_troubles = ["Failed to load resource: net::ERR_CONNECTION_REFUSED"]


def test_the_token_that_a_server_asks_for_stays_in_memory(
    open_page: Open, models: Path, tmp_path: Path, picture: Path
) -> None:
    new = new_token("page")
    tokens = tmp_path / "tokens"
    tokens.write_text(new.line)
    with Playground(models, tmp_path / "closed", "--tokens", str(tokens)) as server:
        page = open_page(server.url)
        page.show_token("wrong")
        assert "token" in page.trouble()
        page.show_token(new.token)
        page.until("!document.getElementById('room').hidden")
        page.pick(picture)
        assert page.evaluate(
            "() => [localStorage.length, sessionStorage.length, document.cookie]"
        ) == [0, 0, ""]
        snippet = page.do("text", selector="#snippet")
        assert '"authorization: Bearer $VISAVIS_TOKEN"' in snippet
        assert new.token not in page.evaluate("() => document.documentElement.outerHTML")
    refused = "Failed to load resource: the server responded with a status of 401 (Unauthorized)"
    page.expected_troubles = [refused] * 2


def test_the_camera_gives_a_picture(open_page: Open) -> None:
    page = open_page(permissions=("camera",))
    page.do("click", selector="#camera-button")
    page.do("click", selector="role=button[name='Take the picture']")
    seen = page.answered()
    assert "camera.jpg" in seen["picture"]
    assert len(panel(seen, DETECTION, "boxes")["rows"]) == 2


def test_a_camera_that_is_not_allowed_is_explained(page: Page) -> None:
    page.do("click", selector="#camera-button")
    page.until("document.getElementById('camera-trouble').innerText")
    assert "may not use the camera" in page.do("text", selector="#camera-trouble")
    page.do("click", selector="role=button[name=Cancel]")
    page.until("!document.getElementById('camera').open")


def test_the_keyboard_alone_will_do(page: Page, picture: Path) -> None:
    page.do("offer", file=str(picture))
    page.tab_to("#pick")
    page.do("press", key="Enter")
    page.answered()
    page.tab_to("[value=colors-soft]")
    page.do("press", key=" ")
    page.until("!document.querySelector('[data-model=colors-soft]')")
    assert "colors-soft" not in page.asked[-1]["models"]
    page.answered()
    page.tab_to(f"[data-task={DETECTION}] [type=range]")
    for _ in range(20):
        page.do("press", key="ArrowRight")
    assert "0.45" in page.do("text", selector=f"[data-task={DETECTION}] strong >> nth=0")
    page.tab_to("[data-model=boxes] tbody tr")
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    (lit,) = panel(page.look(), DETECTION, "boxes")["litRows"]
    assert "cat" in lit
    page.tab_to("[data-model=boxes-other] tbody tr")
    page.do("press", key="ArrowDown")
    (lit,) = panel(page.look(), DETECTION, "boxes-other")["litRows"]
    assert "dog" in lit
    page.tab_to("#languages input")
    page.do("press", key="ArrowRight")
    assert page.do("text", selector="#snippet").startswith("from visavis import Client")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(open_page: Open, picture: Path) -> None:
    page = open_page(viewport={"width": 360, "height": 740}, isMobile=True, hasTouch=True)
    for _ in range(2):
        assert page.evaluate("() => document.documentElement.scrollWidth") == 360
        heights = page.evaluate(
            """() => [...document.querySelectorAll("button, .chip")]
                .filter((of) => of.checkVisibility())
                .map((of) => of.getBoundingClientRect().height)"""
        )
        assert min(heights) >= 36
        page.pick(picture)
    page.do("tap", selector="[data-model=boxes-other] .box[data-kind=both]")
    assert len(panel(page.look(), DETECTION, "boxes")["litRows"]) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(open_page: Open, scheme: str) -> None:
    page = open_page(colorScheme=scheme)
    colors = page.evaluate(
        """() => Object.fromEntries(
            ["page", "surface", "sunken", "ink", "quiet", "accent", "on-accent", "accent-soft",
             "warning", "warning-soft"].map((name) => [
                name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`),
            ]))"""
    )
    assert (luminance(colors["page"]) < 0.1) == (scheme == "dark")
    for text, behind in (
        *(("ink", behind) for behind in ("page", "surface", "accent-soft")),
        *(("quiet", behind) for behind in ("page", "surface", "sunken", "accent-soft")),
        *(("accent", behind) for behind in ("page", "surface")),
        ("on-accent", "accent"),
        ("warning", "warning-soft"),
    ):
        assert contrast(colors[text], colors[behind]) >= 4.5, (text, behind)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2 defines it; 4.5 is what text needs."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    channels = [int(color.strip()[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_table_marks_what_differs(page: Page) -> None:
    page.until("document.querySelector('#cards table')")
    read = """() => [...document.querySelectorAll("#cards tr")]
        .filter((row) => row.checkVisibility())
        .map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"""
    (_, *models), *rows = page.evaluate(read)
    assert models == ["boxes", "boxes-other", "colors", "colors-fragile", "colors-soft"]
    facts = {name.removesuffix("≠"): values for name, *values in rows}
    # The order and the words of the comparison page that the project began with.
    assert list(facts)[:9] == [
        "Organization",
        "Category",
        "Modality",
        "Release date",
        "Context window",
        "Parameters",
        "Licence",
        "Vision tasks",
        "Real-time vision",
    ]
    assert facts["Context window"] == ["—"] * 5
    assert facts["Label set"] == ["two-things (2)"] * 2 + ["three-colors (3)"] * 3
    assert facts["Thresholds"][0] == "score 0.25, IoU 0.45, at most 300"
    assert facts["Golden sample"] == ["verified"] * 5
    for name, *values in rows:
        assert name.endswith("≠") == (len(set(values)) > 1), name
    page.do("click", selector="#only-differences")
    assert {len(set(values)) > 1 for _, *values in page.evaluate(read)[1:]} == {True}


def test_the_raw_answer_opens_in_a_tab(page: Page, picture: Path, client: Client) -> None:
    page.pick(picture)
    raw = json.loads(page.do("follow", selector="#raw"))
    answer = raw["comparisons"][1]["answers"][0]
    (found, *_) = client.detect(picture, model="boxes", score_threshold=0.05).detections
    assert (answer["servedBy"]["model"], answer["detections"][0]["score"]) == (
        "boxes",
        pytest.approx(found.score),
    )
