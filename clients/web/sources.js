// The sources of pictures: chosen, dropped, pasted, or from the camera.

import { photograph } from "./camera.js";

const field = document.getElementById("file");

/** Pass every new file to `take`. */
export function listen(take) {
  const takeFirst = ([file]) => file && take(file);

  document.getElementById("pick").addEventListener("click", () => field.click());
  field.addEventListener("change", () => {
    takeFirst(field.files);
    field.value = ""; // so that the same file can be chosen again
  });

  document.getElementById("camera-button").addEventListener("click", async () => {
    const file = await photograph();
    if (file) take(file);
  });

  document.addEventListener("paste", ({ clipboardData }) => takeFirst(clipboardData.files));

  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    document.body.dataset.dragging = "";
  });
  document.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) delete document.body.dataset.dragging;
  });
  document.addEventListener("drop", (event) => {
    delete document.body.dataset.dragging;
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    takeFirst(event.dataTransfer.files);
  });
}
