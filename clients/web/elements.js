// The page's elements. Nothing is parsed as HTML, because names and labels are untrusted.

/**
 * Return a new element.
 *
 * properties: set as properties if the element has them, else as attributes; `style` and `dataset`
 * are objects. Undefined values are skipped, as are children that are null or false.
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

/** Set style properties, including custom ones, in the only way that the CSP allows. */
export function setStyle(of, properties) {
  for (const [name, value] of Object.entries(properties)) of.style.setProperty(name, value);
}
