// One model's answer: the parts common to all tasks.

import { element } from "./elements.js";
import { milliseconds, provider, RANDOM } from "./words.js";

const STAGES = {
  queueMs: "waiting",
  preprocessMs: "preparing",
  inferenceMs: "inference",
  postprocessMs: "finishing",
};
const NOTHING_YET = { items: [], missing: [], agreement: null };

export class Panel {
  #body;
  #about = element("p", { className: "quiet" });
  #badges = element("p", { className: "badges" });
  #problem = element("p", { className: "problem" });
  #timings = element("div", { className: "timings" });

  /** body: has an `element`, and a `draw` method for the task's content. */
  constructor(model, body) {
    this.#body = body;
    this.element = element(
      "article",
      { className: "card panel", ariaLabel: model, dataset: { model } },
      element(
        "header",
        {},
        element("div", {}, element("h3", {}, model), this.#about),
        this.#badges,
      ),
      this.#problem,
      body.element,
      this.#timings,
    );
  }

  /**
   * answer: undefined until it arrives. content: the part to draw; undefined if the model has
   * failed. longestMs: the time of the slowest model.
   */
  draw({ answer, content = NOTHING_YET, card, isBaseline, isWaiting, longestMs, ...view }) {
    const { version, precision, executionProvider, randomWeights } = answer?.servedBy ?? card;
    this.#about.textContent = `v${version} · ${precision} · ${provider(executionProvider)}`;
    this.#badges.replaceChildren(
      ...(isBaseline ? [element("span", { className: "badge" }, "baseline")] : []),
      ...(randomWeights ? [element("span", { className: "badge warning" }, RANDOM)] : []),
    );
    const failed = Boolean(answer?.status.code);
    this.element.ariaBusy = isWaiting;
    this.element.dataset.state = failed ? "failed" : answer ? "answered" : "waiting";
    this.#problem.textContent = failed ? `Failed: ${answer.status.message}` : "";
    this.#body.element.hidden = failed;
    this.#body.draw(content, { ...view, heatMap: failed ? undefined : answer?.heatMap });
    this.#timings.replaceChildren(...(answer?.timings ? stages(answer.timings, longestMs) : []));
  }
}

function stages(timings, longestMs) {
  const stages = Object.entries(STAGES);
  const bar = stages.map(([stage]) =>
    element("span", {
      dataset: { stage },
      style: { width: `${(100 * timings[stage]) / longestMs}%` },
    }),
  );
  const key = stages.map(([stage, name]) =>
    element("li", { dataset: { stage } }, `${name} ${milliseconds(timings[stage])}`),
  );
  return [
    element("p", {}, element("strong", {}, milliseconds(timings.totalMs))),
    element("div", { className: "track", ariaHidden: "true" }, bar),
    element("ul", { className: "quiet" }, key),
  ];
}
