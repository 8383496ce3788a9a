#!/usr/bin/env node
// Runs the scenario of ../../README.md against a server.
import { readFile } from "node:fs/promises";

import { type Box, type ModelAnswer, type Task, VisavisClient, VisavisError } from "./node.js";

const PATIENCE_MS = 30_000;
const TASK_NAMES: Record<Task, string> = {
  classification: "classification",
  detection: "object detection",
};

async function waitUntilServing(client: VisavisClient) {
  await client.waitUntilReady();
  print({ step: "health", status: "SERVING" });
}

async function list(client: VisavisClient) {
  const cards = (await client.models()).map(
    ({ name, tasks: [task], precision, randomWeights }) => ({
      name,
      task: task && TASK_NAMES[task],
      precision,
      random_weights: randomWeights,
    }),
  );
  print({ step: "list", models: cards });
}

async function classify(client: VisavisClient, image: Uint8Array) {
  const answer = await client.classify(image, { model: "resnet50", topK: 3 });
  const labels = answer.classifications.map(({ label, score }) => ({
    label,
    score: rounded(score, 4),
  }));
  print({ step: "classify", model: answer.servedBy.model, labels });
}

async function detect(client: VisavisClient, image: Uint8Array) {
  const answer = await client.detect(image, { model: "yolov5n", scoreThreshold: 0.4 });
  const detections = answer.detections.map(({ label, score, box }) => ({
    label,
    score: rounded(score, 4),
    box: edges(box),
  }));
  print({ step: "detect", model: answer.servedBy.model, detections });
}

async function compare(client: VisavisClient, image: Uint8Array) {
  for await (const event of client.compareStream(image)) {
    if (event.type === "answer") {
      const { servedBy, classifications, detections } = event.answer;
      const answers = classifications.length + detections.length;
      print({ step: "compare", arrived: servedBy.model, answers });
      continue;
    }
    for (const { task, answers } of event.comparison.comparisons) {
      for (const { servedBy, agreement } of answers) {
        const { model } = servedBy;
        print({ step: "compare", task: TASK_NAMES[task], model, agreement: agreed(agreement) });
      }
    }
  }
}

async function missDeadline(client: VisavisClient, image: Uint8Array) {
  const { code } = await refusal(client.classify(image, { model: "resnet50", timeoutMs: 1 }));
  print({ step: "deadline", code });
}

async function beRefused(client: VisavisClient, image: Uint8Array) {
  const headers = { "x-request-id": "scenario" };
  const { code, field, requestId } = await refusal(
    client.classify(image, { model: "resnet50", topK: 0, headers }),
  );
  print({ step: "error", code, field, request_id: requestId });
}

async function askOverTls(address: string, caFile: string, token: string) {
  const tls = { ca: await readFile(caFile) };
  const known = new VisavisClient({ address, tls, token });
  const stranger = new VisavisClient({ address, tls });
  try {
    const models = await known.models();
    const { code } = await refusal(stranger.models());
    print({ step: "tls", models: models.length, without_token: code });
  } finally {
    known.close();
    stranger.close();
  }
}

/** Return the agreement of an answer with the baseline's; null if it has none. */
function agreed(agreement: ModelAnswer["agreement"]) {
  if (agreement?.kind === "classification") {
    const { sameTop1, topKOverlap } = agreement;
    return { same_top1: sameTop1, top_k_overlap: rounded(topKOverlap, 4) };
  }
  if (agreement?.kind === "detection") {
    const { matched, onlyHere: only_here, onlyInBaseline: only_in_baseline, f1 } = agreement;
    return { matched, only_here, only_in_baseline, f1: rounded(f1, 4) };
  }
  return null;
}

/** Return the error of a call that must fail; throw if it succeeds. */
async function refusal(call: Promise<unknown>): Promise<VisavisError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof VisavisError) return error;
    throw error;
  }
  throw new Error("a call that must fail did not");
}

function edges({ xMin, yMin, xMax, yMax }: Box) {
  return [xMin, yMin, xMax, yMax].map((edge) => rounded(edge, 1));
}

function rounded(value: number, decimals: number) {
  return Number(value.toFixed(decimals));
}

function print(line: object) {
  console.log(JSON.stringify(line));
}

async function ask(address: string, picture: string) {
  const client = new VisavisClient({ address, timeoutMs: PATIENCE_MS });
  try {
    const image = await readFile(picture);
    await waitUntilServing(client);
    await list(client);
    await classify(client, image);
    await detect(client, image);
    await compare(client, image);
    await missDeadline(client, image);
    await beRefused(client, image);
  } finally {
    client.close();
  }
}

async function main() {
  const [server, picture, tlsServer, caFile, token] = process.argv.slice(2);
  if (!server || !picture) {
    throw new Error("usage: scenario SERVER PICTURE [TLS_SERVER CA_FILE TOKEN]");
  }
  await ask(server, picture);
  if (tlsServer && caFile && token) {
    await askOverTls(tlsServer, caFile, token);
  }
}

main().catch((error: unknown) => {
  console.error("scenario:", error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
