// The page: a picture, the chosen models and their answers.

import { cardTable } from "./cards.js";
import { Choice } from "./choice.js";
import { Classification } from "./classification.js";
import { showCode, showRaw } from "./code.js";
import { Server } from "./connect.js";
import { Detection } from "./detection.js";
import { element } from "./elements.js";
import { read } from "./picture.js";
import { listen } from "./sources.js";
import { bytes, milliseconds, pixels, plural, sentence } from "./words.js";

const SECTIONS = { TASK_CLASSIFICATION: Classification, TASK_OBJECT_DETECTION: Detection };
const PAUSE_MS = 250; // wait for further changes before the next request
const RETRY_MS = 2_000; // while the server loads its models

const page = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map((part) => [part.id, part]),
);
const server = new Server();
const choice = new Choice(page.choice, askSoon);
const cards = new Map(); // by model
const labels = new Map(); // by model, where label sets differ
const sections = new Map(); // by task
const baselines = new Map(); // by task, if one was picked
const views = new Map(); // by task, of the last request
let picture = null;
let latestFile = null;
let asking = new AbortController();
let pause;

/** Load the list of models as soon as the server is ready. */
async function start() {
  for (;;) {
    try {
      const { models } = await server.call("ListModels", {});
      await readLabels(models);
      tell(null);
      offer(models);
      await ask();
      return;
    } catch (error) {
      tell(error);
      if (error.code !== "unavailable") return;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

/** Read the labels of models whose task has several label sets: they are compared by name. */
async function readLabels(models) {
  for (const task of Object.keys(SECTIONS)) {
    const capable = models.filter((card) => card.tasks.includes(task));
    if (new Set(capable.map((card) => card.labelSet.name)).size < 2) continue;
    for (const { name } of capable) {
      const { model } = await server.call("GetModel", { model: name });
      labels.set(name, model.labelSet.labels);
    }
  }
}

/** Keep a card, with its labels if they are needed. */
function keep(card) {
  if (labels.has(card.name)) card.labelSet.labels = labels.get(card.name);
  cards.set(card.name, card);
}

function offer(models) {
  for (const card of models) keep(card);
  for (const [task, Kind] of Object.entries(SECTIONS)) {
    const capable = models.filter((card) => card.tasks.includes(task));
    if (!capable.length) continue;
    const onBaseline = (model) => {
      baselines.set(task, model);
      ask();
    };
    const section = new Kind(task, capable, { onBaseline, onAsk: askSoon });
    section.element.hidden = true;
    sections.set(task, section);
  }
  page.answers.replaceChildren(...[...sections.values()].map((section) => section.element));
  choice.offer(models);
  page.cards.replaceChildren(cardTable(models));
  page.models.hidden = false;
}

/** Read a picture from a file and send it. */
async function take(file) {
  latestFile = file;
  let taken;
  try {
    taken = await read(file);
  } catch (error) {
    tell(error);
    return;
  }
  if (latestFile !== file) {
    URL.revokeObjectURL(taken.url);
    return;
  }
  if (picture) URL.revokeObjectURL(picture.url);
  picture = taken;
  document.body.dataset.state = "asked";
  page.thumbnail.src = picture.url;
  page.thumbnail.hidden = page.again.hidden = false;
  page["picture-name"].textContent = picture.name;
  page["picture-about"].textContent =
    `${pixels(picture.width, picture.height)}, ${bytes(picture.bytes)}`;
  page.pick.textContent = "Another picture";
  await ask();
}

/** Send the request once nothing has changed for a moment. */
function askSoon() {
  clearTimeout(pause);
  pause = setTimeout(ask, PAUSE_MS);
}

/** Send the picture to the chosen models and show their answers as they arrive. */
async function ask() {
  clearTimeout(pause);
  asking.abort();
  if (!picture || !sections.size) return;
  const chosen = baselinesFirst(choice.models);
  begin(chosen);
  if (!chosen.size) return;
  asking = new AbortController();
  const { signal } = asking;
  try {
    const request = {
      image: { encoded: picture.encoded },
      ...selection(chosen),
      ...explained(),
      ...Object.assign({}, ...[...chosen.keys()].map((task) => sections.get(task).asked)),
    };
    for await (const event of server.stream("CompareStream", request, signal)) {
      if (signal.aborted) return;
      if (event.answer) arrive(event.answer);
      else conclude(event.summary);
    }
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

/** Return the chosen models by task, each task's baseline first. */
function baselinesFirst(chosen) {
  for (const [task, baseline] of baselines) {
    const models = chosen.get(task);
    if (models?.includes(baseline)) {
      chosen.set(task, [baseline, ...models.filter((model) => model !== baseline)]);
    }
  }
  return chosen;
}

function explained() {
  return page.explain.checked ? { explain: {} } : {};
}

function selection(chosen) {
  return { tasks: [...chosen.keys()], models: [...new Set([...chosen.values()].flat())] };
}

/** Show which models are about to answer. */
function begin(chosen) {
  tell(null);
  showRaw(null);
  page["left-out"].replaceChildren();
  for (const [task, section] of sections) {
    const models = chosen.get(task);
    section.element.hidden = !models;
    if (!models) {
      views.delete(task);
      continue;
    }
    const last = views.get(task);
    // Earlier answers about the same picture stay until newer ones arrive.
    const known = last?.picture === picture ? [...last.answers] : [];
    views.set(task, {
      models,
      cards,
      picture,
      answers: new Map(known.filter(([model]) => models.includes(model))),
      waiting: new Set(models),
      nothingToCompare: "",
    });
    section.draw(views.get(task));
  }
  warn([...chosen.values()].flat());
  sayProgress();
  showCodeOf();
}

/** Show one answer, as it arrives. */
function arrive({ task, answer }) {
  const { model } = answer.servedBy;
  views.get(task).answers.set(model, answer);
  views.get(task).waiting.delete(model);
  sections.get(task).draw();
  sayProgress();
}

/** Show the summary once all models have answered. */
function conclude(summary) {
  for (const card of summary.models) keep(card);
  for (const { task, answers, nothingToCompare } of summary.comparisons) {
    const view = views.get(task);
    for (const answer of answers) view.answers.set(answer.servedBy.model, answer);
    view.nothingToCompare = nothingToCompare;
    sections.get(task).draw();
  }
  page["left-out"].replaceChildren(
    ...summary.leftOut.map(({ model, reason }) =>
      element("li", {}, `Left out: ${model}, ${reason}`),
    ),
  );
  const { totalMs, decodeMs } = summary.timings;
  page.status.append(` in ${milliseconds(totalMs)} (decoding ${milliseconds(decodeMs)})`);
  showRaw(summary);
}

function sayProgress() {
  let [asked, answered] = [0, 0];
  for (const { models, answers, waiting } of views.values()) {
    asked += models.length;
    answered += models.filter(
      (model) => !waiting.has(model) && answers.get(model)?.status.code === 0,
    ).length;
  }
  const all = plural(asked, "model");
  page.status.textContent = !asked
    ? "Choose a model."
    : `${answered === asked ? all : `${answered} of ${all}`} answered`;
}

function warn(models) {
  const random = models.filter((model) => cards.get(model).randomWeights);
  page.random.hidden = !random.length;
  page.random.textContent = `Random weights: the answers of ${random.join(", ")} are meaningless.`;
}

/** Show an error; null removes it. */
function tell(error) {
  const locked = error?.code === "unauthenticated";
  page.token.hidden = !locked;
  page.room.hidden = locked;
  if (locked) page["token-field"].focus();
  page.trouble.replaceChildren();
  if (!error || (locked && !server.token)) return;
  page.trouble.append(element("p", {}, element("strong", {}, sentence(error.message))));
  if (error.requestId) {
    page.trouble.append(
      element("p", { className: "quiet" }, `${error.code}, request ${error.requestId}`),
    );
  }
}

/** Show that the missing answers will not arrive. */
function fail(error) {
  for (const [task, view] of views) {
    view.waiting.clear();
    sections.get(task).draw();
    sections.get(task).element.hidden = !view.answers.size;
  }
  page.status.textContent = "";
  tell(error);
}

/** Show the code for the current request. */
function showCodeOf() {
  if (!picture) return;
  const chosen = baselinesFirst(choice.models);
  const options = [...chosen.keys()].map((task) => sections.get(task).options);
  showCode({
    url: new URL(".", location.href).href,
    file: picture.name,
    options: Object.assign(
      {},
      choice.isEverything && !baselines.size ? {} : selection(chosen),
      explained(),
      ...options,
    ),
    needsToken: server.token !== "",
  });
}

listen(take);
page.again.addEventListener("click", ask);
page.explain.addEventListener("change", askSoon);
page.answers.addEventListener("input", showCodeOf);
page.answers.addEventListener("click", showCodeOf); // a slider may have been reset
page["only-differences"].addEventListener("change", ({ target }) => {
  page.cards.toggleAttribute("data-only-differences", target.checked);
});
page.token.addEventListener("submit", (event) => {
  event.preventDefault();
  server.token = page["token-field"].value.trim();
  page["token-field"].value = "";
  start();
});

start();
