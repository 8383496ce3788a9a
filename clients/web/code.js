// The request behind the page as code to copy.

import { element } from "./elements.js";
import { LANGUAGES } from "./snippets.js";

const section = document.getElementById("code");
const snippet = document.getElementById("snippet");
const copy = document.getElementById("copy");
const languages = document.getElementById("languages");
const raw = document.getElementById("raw");
const link = document.getElementById("to-code");

let about;

/** Show the code of a request, in the form that snippets.js takes. */
export function showCode(of) {
  about = of;
  const language = languages.querySelector(":checked").value;
  snippet.textContent = LANGUAGES[language](about);
  copy.textContent = "Copy";
  section.hidden = link.hidden = false;
}

/** Link the server's raw response; null if there is none yet. */
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
    // Over http browsers hide the clipboard; the user can still press Ctrl+C.
    getSelection().selectAllChildren(snippet);
    copy.textContent = "Selected, to copy";
  }
});
