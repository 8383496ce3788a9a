// What the page is made of. Nothing is ever read as HTML: names and labels come from strangers.

/**
 * Return a new element.
 *
 * properties: of the element where it has them, else attributes; `style` and `dataset` are
 * objects. Undefined ones are left out, and so are children that are null or false.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name === "dataset") Object.assign(made.dataset, value);
    else if (name === "style") setStyle(made, value);
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== false));
  return made;
}

/** Set properties of an element's style, custom ones too: the only way that the CSP leaves. */
export function setStyle(of, properties) {
  for (const [name, value] of Object.entries(properties)) of.style.setProperty(name, value);
}
