// The choice of tasks and models.

import { element } from "./elements.js";
import { TASKS } from "./words.js";

/** Check boxes for every model, by task. */
export class Choice {
  #fieldsets = new Map();

  /** onChange: called when the choice changes. */
  constructor(into, onChange) {
    this.#into = into;
    this.#onChange = onChange;
  }

  #into;
  #onChange;

  /** Offer these models, all of them chosen. */
  offer(cards) {
    for (const task of Object.keys(TASKS)) {
      const capable = cards.filter((card) => card.tasks.includes(task));
      if (capable.length) this.#fieldsets.set(task, this.#fieldset(task, capable));
    }
    this.#into.replaceChildren(...[...this.#fieldsets.values()].map(({ whole }) => whole));
  }

  /** The names of the chosen models by task; tasks without any are left out. */
  get models() {
    const chosen = new Map();
    for (const [task, { boxes }] of this.#fieldsets) {
      const names = boxes.filter((box) => box.checked).map((box) => box.value);
      if (names.length) chosen.set(task, names);
    }
    return chosen;
  }

  /** True if every model is chosen. */
  get isEverything() {
    return [...this.#fieldsets.values()].every(({ boxes }) => boxes.every((box) => box.checked));
  }

  #fieldset(task, cards) {
    const all = element("input", { type: "checkbox", checked: true });
    const boxes = cards.map((card) =>
      element("input", { type: "checkbox", value: card.name, checked: true }),
    );
    const chips = cards.map((card, index) =>
      element(
        "label",
        { className: "chip" },
        boxes[index],
        element("span", {}, card.name),
        element("small", {}, card.precision),
      ),
    );
    const whole = element(
      "fieldset",
      {},
      element("legend", {}, element("label", { className: "check" }, all, " ", TASKS[task])),
      element("div", { className: "chips" }, chips),
    );
    whole.addEventListener("change", ({ target }) => {
      if (target === all) for (const box of boxes) box.checked = all.checked;
      all.checked = boxes.every((box) => box.checked);
      all.indeterminate = !all.checked && boxes.some((box) => box.checked);
      this.#onChange();
    });
    return { whole, boxes };
  }
}
