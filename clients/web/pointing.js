// Highlights matching items together, and moves through lists with the arrow keys.

/** Highlight all items inside with the key of the hovered or focused one. */
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
    // A touch ends the hover as soon as the finger is lifted.
    if (pointerType !== "touch") show(undefined);
  });
  inside.addEventListener("focusout", () => show(undefined));
}

/** Move the focus through the items of a list with the arrow keys. */
export function walk(inside) {
  inside.addEventListener("keydown", (event) => {
    const item = event.target.closest("[data-key]");
    const next = { ArrowDown: item?.nextElementSibling, ArrowUp: item?.previousElementSibling };
    if (!(event.key in next)) return;
    event.preventDefault();
    next[event.key]?.focus();
  });
}
