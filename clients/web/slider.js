// A slider that displays its value.

import { element } from "./elements.js";

/** A slider; its `value` is null until it is moved, and again after a reset. */
export class Slider {
  value = null;
  #input;
  // Not an <output>, which the label would treat as its labelled control.
  #output = element("strong");
  #reset;
  #own;
  #ownText;
  #decimals;

  /**
   * own: its position until it is moved; ownText: its text there.
   * onMove: called when the value has changed.
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
