// All answers for one task, side by side.

import { labelKey, sideBySide } from "./agreement.js";
import { element } from "./elements.js";
import { Panel } from "./panel.js";
import { light, walk } from "./pointing.js";
import { MARKS, TASKS } from "./words.js";

/**
 * The part of the page for one task.
 *
 * A subclass per task implements `shows` (the items of an answer), `agree` (the agreement of two)
 * and `newBody` (the body of a panel).
 */
export class Section {
  #view;
  #panels = new Map();
  #pick = element("select");
  #against = element("label", { className: "against" }, "compared with ", this.#pick);
  #alone = element("p", { className: "alone" });
  #legend = element("ul", { className: "kinds" });
  #grid = element("div", { className: "panels" });

  /** controls: elements of the head. onBaseline: called when another baseline is picked. */
  constructor(task, controls, onBaseline) {
    this.element = element(
      "section",
      { className: "task", ariaLabel: TASKS[task], dataset: { task } },
      element("div", { className: "head" }, element("h2", {}, TASKS[task]), this.#against),
      element("div", { className: "controls" }, controls, this.#legend),
      this.#alone,
      this.#grid,
    );
    this.#pick.addEventListener("change", () => onBaseline(this.#pick.value));
    light(this.#grid);
    walk(this.#grid);
  }

  /**
   * Show a view, or the last one again.
   *
   * view: `models` by name, the baseline first; `cards` and `answers` by model; `waiting`, the
   * models that have not answered yet; `picture`; `nothingToCompare`, a text.
   */
  draw(view = this.#view) {
    this.#view = view;
    const { models, cards, answers, waiting, picture, nothingToCompare } = view;
    const [baseline] = models;
    const contents = this.#contents(view);
    const longestMs = Math.max(...[...answers.values()].map((of) => of.timings?.totalMs ?? 0));
    for (const model of models) {
      this.#panel(model).draw({
        answer: answers.get(model),
        content: contents.get(model),
        card: cards.get(model),
        isBaseline: models.length > 1 && model === baseline,
        isWaiting: waiting.has(model),
        longestMs,
        picture,
        baseline,
      });
    }
    this.#arrange(models);
    this.#alone.textContent = nothingToCompare;
    this.#legend.replaceChildren(...legend(baseline));
    this.#legend.hidden = [...contents.values()].every(({ agreement }) => !agreement);
  }

  #contents({ models: [baseline], cards, answers }) {
    const shown = new Map();
    for (const [model, answer] of answers) {
      if (!answer.status.code) shown.set(model, this.shows(answer, cards.get(model)));
    }
    return sideBySide(shown, baseline, (model, ours, theirs) => {
      const key = labelKey(cards.get(model).labelSet, cards.get(baseline).labelSet);
      return this.agree(ours, theirs, key, answers.get(model));
    });
  }

  #panel(model) {
    if (!this.#panels.has(model)) this.#panels.set(model, new Panel(model, this.newBody()));
    return this.#panels.get(model);
  }

  #arrange(models) {
    const panels = models.map((model) => this.#panels.get(model).element);
    // Inserting an element where it already is would lose the focus.
    const isSame = (panel, index) => panel === this.#grid.children[index];
    if (panels.length === this.#grid.children.length && panels.every(isSame)) return;
    this.#grid.replaceChildren(...panels);
    this.#against.hidden = models.length < 2;
    this.#pick.replaceChildren(...models.toSorted().map((model) => element("option", {}, model)));
    this.#pick.value = models[0];
  }
}

function legend(baseline) {
  const texts = { both: `as in ${baseline}`, here: "only here", baseline: `only in ${baseline}` };
  return Object.entries(texts).map(([kind, text]) =>
    element("li", { dataset: { kind } }, element("b", {}, MARKS[kind]), ` ${text}`),
  );
}
