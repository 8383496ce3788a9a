// The page: a picture, the models that are asked about it, and what they answer.

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
const PAUSE_MS = 250; // before a change is asked for: others may follow
const RETRY_MS = 2_000; // while the server loads its models

const page = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map((part) => [part.id, part]),
);
const server = new Server();
const choice = new Choice(page.choice, askSoon);
const cards = new Map(); // by model
const sections = new Map(); // by task
const baselines = new Map(); // by task, where one was picked
const views = new Map(); // by task, of what was asked last
let picture = null;
let latestFile = null;
let asking = new AbortController();
let pause;

/** Learn what models there are, as soon as the server has them. */
async function start() {
  for (;;) {
    try {
      const { models } = await server.call("ListModels", {});
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

function offer(models) {
  for (const card of models) cards.set(card.name, card);
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

/** Take a picture from a file, and ask about it. */
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

/** Ask when nothing has changed any more for a moment. */
function askSoon() {
  clearTimeout(pause);
  pause = setTimeout(ask, PAUSE_MS);
}

/** Ask the chosen models about the picture, and show their answers as they arrive. */
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

/** Return what is chosen, with the models that the others are held against at the front. */
function baselinesFirst(chosen) {
  for (const [task, baseline] of baselines) {
    const models = chosen.get(task);
    if (models?.includes(baseline)) {
      chosen.set(task, [baseline, ...models.filter((model) => model !== baseline)]);
    }
  }
  return chosen;
}

function selection(chosen) {
  return { tasks: [...chosen.keys()], models: [...new Set([...chosen.values()].flat())] };
}

/** Show that these are asked now. */
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
    // What was answered about the same picture stays until there is something newer.
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

/** Show what is known once all have answered. */
function conclude(summary) {
  for (const card of summary.models) cards.set(card.name, card);
  for (const { task, answers, nothingToCompare } of summary.comparisons) {
    const view = views.get(task);
    for (const answer of answers) view.answers.set(answer.servedBy.model, answer);
    view.nothingToCompare = nothingToCompare;
    sections.get(task).draw();
  }
  page["left-out"].replaceChildren(
    ...summary.leftOut.map(({ model, reason }) =>
      element("li", {}, `Not asked: ${model}, ${reason}`),
    ),
  );
  const { totalMs, decodeMs } = summary.timings;
  page.status.append(` in ${milliseconds(totalMs)}, of which decoding ${milliseconds(decodeMs)}`);
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
  page.random.textContent =
    `Random weights: what ${random.join(", ")} ${random.length > 1 ? "answer" : "answers"} ` +
    "has no meaning.";
}

/** Say what went wrong; null: nothing. */
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

/** Say that what was asked for is not to come. */
function fail(error) {
  for (const [task, view] of views) {
    view.waiting.clear();
    sections.get(task).draw();
    sections.get(task).element.hidden = !view.answers.size;
  }
  page.status.textContent = "";
  tell(error);
}

/** Show the code that asks for what is shown. */
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
      ...options,
    ),
    needsToken: server.token !== "",
  });
}

listen(take);
page.again.addEventListener("click", ask);
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
