// What is alike lights up together; lists can be walked with the arrow keys.

/** Light up all inside that has the key of what is pointed at, or has the focus. */
export function light(inside) {
  const show = (key) => {
    inside.toggleAttribute("data-lit", key !== undefined);
    for (const other of inside.querySelectorAll("[data-key]")) {
      other.toggleAttribute("data-lit", other.dataset.key === key);
    }
  };
  const showLikes = ({ target }) => show(target.closest("[data-key]")?.dataset.key);
  inside.addEventListener("pointerover", showLikes);
  inside.addEventListener("focusin", showLikes);
  inside.addEventListener("pointerleave", ({ pointerType }) => {
    // A finger leaves as soon as it is lifted.
    if (pointerType !== "touch") show(undefined);
  });
  inside.addEventListener("focusout", () => show(undefined));
}

/** Let the arrow keys move the focus from one item of a list to the next. */
export function walk(inside) {
  inside.addEventListener("keydown", (event) => {
    const item = event.target.closest("[data-key]");
    const next = { ArrowDown: item?.nextElementSibling, ArrowUp: item?.previousElementSibling };
    if (!(event.key in next)) return;
    event.preventDefault();
    next[event.key]?.focus();
  });
}
