#!/usr/bin/env node
// Runs the scenario of ../../README.md against a server.
import { readFile } from "node:fs/promises";

import {
  type BoundingBox,
  connect,
  encoded,
  type Failure,
  failure,
  type ModelAnswer,
  type NodeClient,
  Task,
} from "./node.js";

type Image = ReturnType<typeof encoded>;

const PATIENCE_MS = 30_000;

async function waitUntilServing(client: NodeClient) {
  await client.waitUntilReady(PATIENCE_MS);
  print({ step: "health", status: "SERVING" });
}

async function list(client: NodeClient) {
  const { models } = await client.listModels({});
  const cards = models.map(({ name, tasks, precision, randomWeights }) => ({
    name,
    task: taskName(tasks[0]),
    precision,
    random_weights: randomWeights,
  }));
  print({ step: "list", models: cards });
}

async function classify(client: NodeClient, image: Image) {
  const answer = await client.classify({ image, model: "resnet50", topK: 3 });
  const labels = answer.classifications.map(({ label, score }) => ({
    label,
    score: rounded(score, 4),
  }));
  print({ step: "classify", model: answer.servedBy?.model, labels });
}

async function detect(client: NodeClient, image: Image) {
  const answer = await client.detect({ image, model: "yolov5n", scoreThreshold: 0.4 });
  const detections = answer.detections.map(({ label, score, box }) => ({
    label,
    score: rounded(score, 4),
    box: box && edges(box),
  }));
  print({ step: "detect", model: answer.servedBy?.model, detections });
}

async function compare(client: NodeClient, image: Image) {
  for await (const { event } of client.compareStream({ image })) {
    if (event.case === "answer" && event.value.answer) {
      const { servedBy, classifications, detections } = event.value.answer;
      const answers = classifications.length + detections.length;
      print({ step: "compare", arrived: servedBy?.model, answers });
    }
    if (event.case === "summary") {
      for (const { task, answers } of event.value.comparisons) {
        for (const { servedBy, agreement } of answers) {
          const model = servedBy?.model;
          print({ step: "compare", task: taskName(task), model, agreement: agreed(agreement) });
        }
      }
    }
  }
}

async function missDeadline(client: NodeClient, image: Image) {
  const { code } = await refusal(client.classify({ image, model: "resnet50" }, { timeoutMs: 1 }));
  print({ step: "deadline", code });
}

async function beRefused(client: NodeClient, image: Image) {
  const headers = { "x-request-id": "scenario" };
  const { code, field, requestId } = await refusal(
    client.classify({ image, model: "resnet50", topK: 0 }, { headers }),
  );
  print({ step: "error", code, field, request_id: requestId });
}

async function askOverTls(server: string, caFile: string, token: string) {
  const ca = await readFile(caFile);
  const known = connect(`https://${server}`, { ca, token });
  const stranger = connect(`https://${server}`, { ca });
  try {
    const { models } = await known.listModels({});
    const { code } = await refusal(stranger.listModels({}));
    print({ step: "tls", models: models.length, without_token: code });
  } finally {
    known.close();
    stranger.close();
  }
}

/** Return the agreement of an answer with the baseline's; null if it has none. */
function agreed(agreement: ModelAnswer["agreement"]) {
  if (agreement.case === "classificationAgreement") {
    const { sameTop1, topKOverlap } = agreement.value;
    return { same_top1: sameTop1, top_k_overlap: rounded(topKOverlap, 4) };
  }
  if (agreement.case === "detectionAgreement") {
    const { matched, onlyHere: only_here, onlyInBaseline: only_in_baseline, f1 } = agreement.value;
    return { matched, only_here, only_in_baseline, f1: rounded(f1, 4) };
  }
  return null;
}

/** Return the error of a call that must fail; throw if it succeeds. */
function refusal(call: Promise<unknown>): Promise<Failure> {
  return call.then(() => {
    throw new Error("a call that must fail did not");
  }, failure);
}

function taskName(task = Task.UNSPECIFIED) {
  return Task[task].toLowerCase().replace("_", " ");
}

function edges({ xMin, yMin, xMax, yMax }: BoundingBox) {
  return [xMin, yMin, xMax, yMax].map((edge) => rounded(edge, 1));
}

function rounded(value: number, decimals: number) {
  return Number(value.toFixed(decimals));
}

function print(line: object) {
  console.log(JSON.stringify(line));
}

async function ask(server: string, picture: string) {
  const client = connect(`http://${server}`);
  try {
    const image = encoded(await readFile(picture));
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

try {
  const [server, picture, tlsServer, caFile, token] = process.argv.slice(2);
  if (!server || !picture) {
    throw new Error("usage: scenario SERVER PICTURE [TLS_SERVER CA_FILE TOKEN]");
  }
  await ask(server, picture);
  if (tlsServer && caFile && token) {
    await askOverTls(tlsServer, caFile, token);
  }
} catch (error) {
  console.error("scenario:", error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
