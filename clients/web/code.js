// What the page shows, as code to copy.

import { element } from "./elements.js";
import { LANGUAGES } from "./snippets.js";

const section = document.getElementById("code");
const snippet = document.getElementById("snippet");
const copy = document.getElementById("copy");
const languages = document.getElementById("languages");
const raw = document.getElementById("raw");
const link = document.getElementById("to-code");

let about;

/** Show the code that asks for something; it is as snippets.js takes it. */
export function showCode(of) {
  about = of;
  const language = languages.querySelector(":checked").value;
  snippet.textContent = LANGUAGES[language](about);
  copy.textContent = "Copy";
  section.hidden = link.hidden = false;
}

/** Let people see an answer as the server gave it; null: there is none yet. */
export function showRaw(answer) {
  URL.revokeObjectURL(raw.href);
  raw.hidden = answer === null;
  if (answer) {
    const text = JSON.stringify(answer, null, 2);
    raw.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  }
}

languages.append(
  ...Object.keys(LANGUAGES).map((language, index) =>
    element(
      "label",
      {},
      element("input", { type: "radio", name: "language", value: language, checked: !index }),
      element("span", {}, language),
    ),
  ),
);
languages.addEventListener("change", () => showCode(about));

copy.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(snippet.textContent);
    copy.textContent = "Copied";
  } catch {
    // Over http browsers hide the clipboard, but not the keyboard.
    getSelection().selectAllChildren(snippet);
    copy.textContent = "Selected, to copy";
  }
});
