// Labels for the whole picture, as bars.

import { classificationAgreement, incomparable } from "./agreement.js";
import { element, setStyle } from "./elements.js";
import { Heat } from "./heat.js";
import { Section } from "./section.js";
import { Slider } from "./slider.js";
import { MARKS, percent, thousandths } from "./words.js";

// Request more than are shown, so that the slider works without a request.
const MOST_LABELS = 20;
const LABELS = 5;

export class Classification extends Section {
  #labels;

  constructor(task, cards, { onBaseline }) {
    const labels = new Slider(
      { label: "Labels", min: 1, max: MOST_LABELS, step: 1, own: LABELS },
      () => this.draw(),
    );
    super(task, [labels.element], onBaseline);
    this.#labels = labels;
  }

  /** The request options that reproduce the view. */
  get options() {
    return this.#labels.value === null ? {} : { topK: this.#labels.value };
  }

  /** The request options in use, which return more than is shown. */
  get asked() {
    return { topK: MOST_LABELS };
  }

  shows(answer) {
    return answer.classifications.slice(0, this.#labels.value ?? LABELS);
  }

  agree(ours, theirs, key, answer) {
    return {
      ...classificationAgreement(ours, theirs, key),
      divergence: answer.classificationAgreement?.jensenShannonDivergence,
    };
  }

  newBody() {
    return new Bars();
  }
}

class Bars {
  #image = element("img");
  #heat = new Heat();
  #frame = element("div", { className: "frame", hidden: true }, this.#image, this.#heat.canvas);
  #bars = element("ol", { className: "bars" });
  #agreement = element("div", { className: "agreement" });
  element = element(
    "div",
    { className: "body" },
    this.#frame,
    this.#heat.legend,
    this.#bars,
    this.#agreement,
  );

  draw({ items, agreement }, { picture, baseline, heatMap }) {
    this.#frame.hidden = !heatMap;
    if (heatMap && this.#image.src !== picture.url) {
      this.#image.src = picture.url;
      setStyle(this.#frame, { "--ratio": picture.width / picture.height });
      this.#image.alt = picture.name;
    }
    this.#heat.draw(heatMap, picture);
    this.#bars.replaceChildren(...items.map(bar));
    this.#agreement.replaceChildren(...(agreement ? summary(items, agreement, baseline) : []));
  }
}

function bar({ item, key, kind }, index) {
  return element(
    "li",
    { tabIndex: index ? -1 : 0, dataset: { key, ...(kind && { kind }) } },
    element("span", { className: "mark" }, MARKS[kind] ?? ""),
    element("span", { className: "label" }, item.label),
    element("span", { className: "score" }, thousandths(item.score)),
    element(
      "span",
      { className: "track", ariaHidden: "true" },
      element("span", { style: { width: `${100 * item.score}%` } }),
    ),
  );
}

function summary(items, of, baseline) {
  const { sameTop1, topKOverlap, divergence } = of;
  const first = sameTop1 ? "Same top label" : "Different top label";
  return [
    element(
      "p",
      {},
      element("strong", {}, first),
      sameTop1 ? ` as ${baseline}` : ` from ${baseline}`,
    ),
    element(
      "p",
      { className: "quiet" },
      `${percent(topKOverlap)} of the first ${items.length} in common`,
      divergence !== undefined && `, divergence ${thousandths(divergence)}`,
    ),
    of.unknown.size + of.baselineUnknown.size > 0 &&
      element("p", { className: "quiet" }, incomparable(of)),
  ].filter(Boolean);
}
