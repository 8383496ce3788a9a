// Boxes around objects, drawn on the picture and listed.

import { detectionAgreement, incomparable } from "./agreement.js";
import { element, setStyle } from "./elements.js";
import { Heat } from "./heat.js";
import { Section } from "./section.js";
import { Slider } from "./slider.js";
import { MARKS, plural, thousandths } from "./words.js";

// Request all boxes above this score, so that the slider works without a request.
const LEAST_SCORE = 0.05;
// Many labels on boxes below this share of the picture would hide it: they appear on hover.
const CROWD = 8;
const SMALL = 0.02;

export class Detection extends Section {
  #least;
  #score;
  #iou;

  /** cards: of all detectors. onAsk: called when a new request is needed. */
  constructor(task, cards, { onBaseline, onAsk }) {
    const scores = cards.map((card) => card.detectionDefaults.scoreThreshold);
    const overlaps = cards.map((card) => card.detectionDefaults.iouThreshold);
    const least = Math.min(LEAST_SCORE, ...scores);
    const score = new Slider(
      { label: "Score above", min: least, max: 0.95, step: 0.01, ...own(scores) },
      () => this.draw(),
    );
    const iou = new Slider(
      {
        label: "Drop duplicates above IoU",
        min: 0.05,
        max: 0.95,
        step: 0.01,
        ...own(overlaps),
        title:
          "Of two boxes that overlap by more, the one with the lower score is dropped. " +
          "Models that do so inside their graph ignore it.",
      },
      onAsk,
    );
    super(task, [score.element, iou.element], onBaseline);
    this.#least = least;
    this.#score = score;
    this.#iou = iou;
  }

  /** The request options that reproduce the view. */
  get options() {
    const options = {};
    if (this.#score.value !== null) options.scoreThreshold = this.#score.value;
    if (this.#iou.value !== null) options.iouThreshold = this.#iou.value;
    return options;
  }

  /** The request options in use, which return more than is shown. */
  get asked() {
    return { ...this.options, scoreThreshold: this.#least };
  }

  shows(answer, card) {
    // In float32, as the server compares them.
    const threshold = Math.fround(this.#score.value ?? card.detectionDefaults.scoreThreshold);
    return answer.detections.filter(({ score }) => Math.fround(score) > threshold);
  }

  agree(ours, theirs, key) {
    return detectionAgreement(ours, theirs, key);
  }

  newBody() {
    return new Boxes();
  }
}

/** Return the initial position and text of a slider: the models' own threshold. */
function own(thresholds) {
  const highest = Math.max(...thresholds);
  if (thresholds.every((threshold) => threshold === highest)) return { own: highest };
  return { own: highest, ownText: "each model’s own" };
}

class Boxes {
  #image = element("img");
  #layer = element("div", { className: "layer", ariaHidden: "true" });
  #heat = new Heat();
  #frame = element("div", { className: "frame" }, this.#image, this.#heat.canvas, this.#layer);
  #agreement = element("div", { className: "agreement" });
  #list = element("div", { className: "found" });
  element = element(
    "div",
    { className: "body" },
    this.#frame,
    this.#heat.legend,
    this.#agreement,
    this.#list,
  );

  draw({ items, missing, agreement }, { picture, baseline, heatMap }) {
    this.#heat.draw(heatMap, picture);
    if (this.#image.src !== picture.url) {
      this.#image.src = picture.url;
      setStyle(this.#frame, { "--ratio": picture.width / picture.height });
    }
    this.#image.alt = `${picture.name} with ${plural(items.length, "box", "boxes")}`;
    const all = [...items, ...missing];
    this.#layer.toggleAttribute("data-crowded", all.length > CROWD);
    // Large boxes first, so that they don't cover the small ones.
    const drawn = all.toSorted((one, other) => area(other.item.box) - area(one.item.box));
    this.#layer.replaceChildren(...drawn.map((of) => box(of, picture)));
    this.#agreement.replaceChildren(...summary(items, agreement, baseline));
    this.#list.replaceChildren(...(all.length ? [table(all, Boolean(agreement))] : []));
  }
}

const area = ({ xMin, yMin, xMax, yMax }) => (xMax - xMin) * (yMax - yMin);

function box({ item, key, kind }, { width, height }) {
  const { xMin, yMin, xMax, yMax } = item.box;
  const tag = element("span", { className: "tag" }, `${item.label} ${item.score.toFixed(2)}`);
  if (kind) tag.prepend(element("b", {}, MARKS[kind]), " ");
  const isSmall = area(item.box) < SMALL * width * height;
  // If there is no room above the box or to its right.
  if (yMin / height < 0.06) tag.dataset.inside = "";
  if (xMin / width > 0.7) tag.dataset.left = "";
  return element(
    "div",
    {
      className: "box",
      dataset: { key, ...(kind && { kind }), ...(isSmall && { small: "" }) },
      style: {
        left: `${(100 * xMin) / width}%`,
        top: `${(100 * yMin) / height}%`,
        width: `${(100 * (xMax - xMin)) / width}%`,
        height: `${(100 * (yMax - yMin)) / height}%`,
      },
    },
    tag,
  );
}

function summary(items, of, baseline) {
  if (!of) return [element("p", {}, element("strong", {}, plural(items.length, "object")))];
  const counts = [
    ["both", of.matched, "match"],
    ["here", of.onlyHere, "only here"],
    ["baseline", of.onlyInBaseline, `only in ${baseline}`],
  ];
  return [
    element("p", {}, element("strong", {}, `F1 ${thousandths(of.f1)}`), ` with ${baseline}`),
    element(
      "ul",
      { className: "kinds" },
      counts.map(([kind, count, text]) =>
        element("li", { dataset: { kind } }, element("b", {}, MARKS[kind]), ` ${count} ${text}`),
      ),
    ),
    of.unknown.size + of.baselineUnknown.size > 0 &&
      element("p", { className: "quiet" }, incomparable(of)),
    of.matched > 0 &&
      element(
        "p",
        { className: "quiet" },
        `mean IoU ${thousandths(of.meanIou)}, `,
        `scores ${thousandths(of.meanScoreDifference)} apart on average`,
      ),
  ].filter(Boolean);
}

function table(all, hasPairs) {
  const heads = ["", "Object", "Score", ...(hasPairs ? ["IoU"] : []), "Box: x, y to x, y"];
  const rows = all.map(({ item, key, kind, iou }, index) =>
    element(
      "tr",
      { tabIndex: index ? -1 : 0, dataset: { key, ...(kind && { kind }) } },
      element("td", { className: "mark" }, MARKS[kind] ?? ""),
      element("td", {}, item.label),
      element("td", {}, thousandths(item.score)),
      hasPairs && element("td", {}, iou === undefined ? "" : thousandths(iou)),
      element("td", { className: "quiet" }, corners(item.box)),
    ),
  );
  return element(
    "table",
    {},
    element(
      "thead",
      {},
      element(
        "tr",
        {},
        heads.map((head) => element("th", {}, head)),
      ),
    ),
    element("tbody", {}, rows),
  );
}

function corners({ xMin, yMin, xMax, yMax }) {
  const [left, top, right, bottom] = [xMin, yMin, xMax, yMax].map(Math.round);
  return `${left}, ${top} to ${right}, ${bottom}`;
}
