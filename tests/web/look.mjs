// What the page shows, in numbers and words. It runs in the page.

export function look() {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const text = (of) => of.innerText.trim().replace(/\s+/g, " ");
  const isShown = (of) => of.checkVisibility();

  function box(of, frame) {
    const image = frame.querySelector("img");
    const [inner, outer] = [of, image].map((part) => part.getBoundingClientRect());
    const scale = image.naturalWidth / outer.width;
    return {
      tag: text(of),
      kind: of.dataset.kind ?? null,
      line: getComputedStyle(of).borderTopStyle,
      isLit: "lit" in of.dataset,
      // In pixels of the picture.
      edges: [
        (inner.left - outer.left) * scale,
        (inner.top - outer.top) * scale,
        (inner.right - outer.left) * scale,
        (inner.bottom - outer.top) * scale,
      ],
    };
  }

  function panel(of) {
    const frame = of.querySelector(".frame");
    return {
      model: of.dataset.model,
      state: of.dataset.state,
      text: text(of),
      // [mark, label, score]
      bars: all(".bars li", of).map((bar) =>
        ["mark", "label", "score"].map((part) => text(bar.querySelector(`.${part}`))),
      ),
      // [mark, label, score, IoU where there are pairs, edges]
      rows: all("tbody tr", of).map((row) => all("td", row).map((cell) => cell.textContent)),
      litRows: all("tr[data-lit], li[data-lit]", of).map(text),
      boxes: frame ? all(".box", frame).map((drawn) => box(drawn, frame)) : [],
    };
  }

  return {
    status: text(document.getElementById("status")),
    trouble: text(document.getElementById("trouble")),
    picture: text(document.querySelector(".about")),
    leftOut: all("#left-out li").map(text),
    notice: all(".notice").filter(isShown).map(text),
    tasks: Object.fromEntries(
      all(".task")
        .filter(isShown)
        .map((task) => [
          task.dataset.task,
          {
            alone: text(task.querySelector(".alone")),
            panels: Object.fromEntries(
              all(".panel", task).map((part) => [part.dataset.model, panel(part)]),
            ),
          },
        ]),
    ),
  };
}
