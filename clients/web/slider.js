// A slider that says what it is set to.

import { element } from "./elements.js";

/** A slider; its `value` is null until somebody moves it, and again once it is reset. */
export class Slider {
  value = null;
  #input;
  // No <output>: a label would take it for what it labels.
  #output = element("strong");
  #reset;
  #own;
  #ownText;
  #decimals;

  /**
   * own: where it stands as long as nobody moves it; ownText: what it says there.
   * onMove: is called when the value has changed.
   */
  constructor({ label, min, max, step, own, ownText, title }, onMove) {
    this.#decimals = step < 1 ? 2 : 0;
    this.#own = own;
    this.#ownText = ownText ?? own.toFixed(this.#decimals);
    this.#input = element("input", { type: "range", min, max, step });
    this.#reset = element("button", { type: "button", ariaLabel: `Reset: ${label}` }, "Reset");
    const name = element("span", {}, label, " ", this.#output);
    this.element = element(
      "div",
      { className: "slider", title },
      element("label", {}, name, this.#input),
      this.#reset,
    );
    this.#input.addEventListener("input", () => {
      this.#set(Number(this.#input.value));
      onMove();
    });
    this.#reset.addEventListener("click", () => {
      this.#set(null);
      this.#input.focus();
      onMove();
    });
    this.#set(null);
  }

  #set(value) {
    this.value = value;
    this.#input.value = value ?? this.#own;
    this.#output.textContent = value?.toFixed(this.#decimals) ?? this.#ownText;
    this.#input.ariaValueText = this.#output.textContent;
    this.#reset.hidden = value === null;
  }
}
