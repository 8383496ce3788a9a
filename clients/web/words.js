// Tasks, numbers and facts as text for people.

export const TASKS = {
  TASK_CLASSIFICATION: "Classification",
  TASK_OBJECT_DETECTION: "Object detection",
};

/** The marks of items that both models or only one has; they repeat what the colours show. */
export const MARKS = { both: "=", here: "+", baseline: "−" };

export const RANDOM = "random weights";

/** A fact that is not known, or does not apply. */
export const MISSING = "—";

/** Return a server's message with a capital letter, as a sentence. */
export const sentence = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

export const known = (text) => text || MISSING;

/** Return an execution provider's name: CPU, CUDA, Tensorrt. */
export const provider = (name) => name.replace(/ExecutionProvider$/, "");

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

export const milliseconds = (ms) => `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;

export const thousandths = (number) => number.toFixed(3);

export const percent = (share) => `${Math.round(share * 100)} %`;

export const pixels = (width, height) => `${width} × ${height} px`;

export function bytes(count) {
  return count < 1e6 ? `${Math.ceil(count / 1e3)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

/** Return a time in UTC, RFC 3339, to the minute. */
export const moment = (time) => (time ? `${time.slice(0, 16).replace("T", " ")} UTC` : MISSING);

/** Return the number of parameters: 25.6 M. count: a string, as all int64 are in JSON. */
export function parameters(count) {
  if (Number(count) <= 0) return MISSING;
  return count < 100_000 ? `${(count / 1e3).toFixed(1)} k` : `${(count / 1e6).toFixed(1)} M`;
}

export const yesOrNo = (value) => (value === undefined ? MISSING : value ? "yes" : "no");
