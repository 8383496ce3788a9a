// Sorts tables, and shows the pictures that a figure is about. Without it, every table and every
// picture is there all the same.
"use strict";

for (const header of document.querySelectorAll("th button"))
  header.addEventListener("click", () => sort(header.closest("th")));

function sort(header) {
  const table = header.closest("table");
  const isUp = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", isUp ? "ascending" : "descending");
  const key = (row) => {
    const cell = row.cells[header.cellIndex];
    return cell.dataset.order ?? cell.textContent.trim();
  };
  const compare = (one, other) => {
    const [x, y] = [parseFloat(one), parseFloat(other)];
    return isNaN(x) || isNaN(y) ? one.localeCompare(other) : x - y;
  };
  const rows = [...table.tBodies[0].rows];
  rows.sort((one, other) => compare(key(one), key(other)) * (isUp ? 1 : -1));
  table.tBodies[0].append(...rows);
}

const FIELDS = ["model", "kind", "about", "truth", "answer", "part"];

for (const section of document.querySelectorAll("section.task")) {
  const pictures = section.querySelector(".pictures");
  if (!pictures) continue;
  const cards = [...pictures.querySelectorAll("figure")].map((figure) => ({
    figure,
    facts: figure.dataset.facts.split(" ").map((fact) => fact.split(":")),
    parts: new Set(figure.dataset.parts.split(" ")),
  }));
  const selects = Object.fromEntries(
    ["model", "kind", "about"].map((name) => [name, pictures.querySelector(`select.${name}`)]),
  );
  let wanted = {};

  const isWanted = (fact) =>
    (!wanted.model || fact[0] === wanted.model) &&
    (!wanted.kind || fact[1] === wanted.kind) &&
    (!wanted.about || fact[2] === wanted.about || fact[3] === wanted.about) &&
    (!wanted.truth || fact[2] === wanted.truth) &&
    (!wanted.answer || fact[3] === wanted.answer);

  function show(what) {
    let count = 0;
    for (const { figure, facts, parts } of cards) {
      figure.hidden = !((!wanted.part || parts.has(wanted.part)) && facts.some(isWanted));
      count += !figure.hidden;
    }
    for (const [name, select] of Object.entries(selects)) select.value = wanted[name] ?? "";
    const pair = pictures.querySelector(`g.pair[data-model="${wanted.model}"]`)
      ? wanted.model
      : pictures.dataset.pair;
    for (const group of pictures.querySelectorAll("g.pair"))
      group.classList.toggle("shown", group.dataset.model === pair);
    for (const name of pictures.querySelectorAll(".pair-name"))
      name.textContent = selects.model.querySelector(`option[value="${pair}"]`)?.textContent ?? "";
    const isAll = count === cards.length;
    pictures.querySelector(".shown-count").textContent =
      `${count} of ${cards.length} ${cards.length === 1 ? "picture" : "pictures"}${what ? `: ${what}` : ""}`;
    pictures.querySelector(".all").hidden = isAll;
  }

  for (const [name, select] of Object.entries(selects))
    select.addEventListener("change", () => {
      // A confusion or a slice that was chosen in a table stays, until all are shown.
      wanted = { ...wanted, [name]: select.value };
      show("");
    });
  pictures.querySelector(".all").addEventListener("click", () => {
    wanted = {};
    show("");
  });
  section.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-filter]");
    if (!link) return;
    const values = link.dataset.filter.split(":");
    wanted = Object.fromEntries(FIELDS.map((name, index) => [name, values[index]]));
    show(link.title);
  });
  show("");
}
