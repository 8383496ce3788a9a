// Messages of the contract, read into the types of results.ts and cards.ts.
import { create, type DescMessage, type Message, type MessageShape } from "@bufbuild/protobuf";

import type { Model, Receipt } from "./cards.js";
import { invalid, statusCode } from "./errors.js";
import * as pb from "./gen/visavis/v1/vision_pb.js";
import type { Task } from "./options.js";
import type * as results from "./results.js";

const TASKS: ReadonlyMap<pb.Task, Task> = new Map([
  [pb.Task.CLASSIFICATION, "classification"],
  [pb.Task.OBJECT_DETECTION, "detection"],
]);

/** Return the contract's values of tasks. Throws a VisavisError for an unknown one. */
export function taskValues(tasks: readonly Task[]): pb.Task[] {
  return tasks.map((task) => {
    for (const [value, name] of TASKS) if (name === task) return value;
    const known = [...TASKS.values()].join(", ");
    throw invalid("tasks", `unknown task ${String(task)}; choose from: ${known}`);
  });
}

/** Return the contract's request for a heat map. Throws a VisavisError for a wrong type. */
export function explainValue(explain?: boolean | string): { label?: string } | undefined {
  if (explain === undefined || explain === false) return undefined;
  if (explain === true) return {};
  if (typeof explain === "string") return { label: explain };
  throw invalid("explain", `explain is ${String(explain)}; give true, or a label as a string`);
}

/** Return one model's labels. */
export function classifyResult(message: pb.ClassifyResponse): results.ClassifyResult {
  return { classifications: message.classifications.map(fields), ...answer(message) };
}

/** Return one model's detections. */
export function detectResult(message: pb.DetectResponse): results.DetectResult {
  return { detections: message.detections.map(detection), ...answer(message) };
}

/** Return the answers of all models; without tasks that are newer than this client. */
export function comparison(message: pb.CompareResponse): results.Comparison {
  return {
    comparisons: message.comparisons.flatMap((of) => {
      const task = TASKS.get(of.task);
      const { baseline, nothingToCompare } = of;
      return task
        ? [{ task, baseline, answers: of.answers.map(modelAnswer), nothingToCompare }]
        : [];
    }),
    leftOut: message.leftOut.map(fields),
    models: message.models.map(model),
    imageSize: present(pb.ImageSizeSchema, message.imageSize),
    timings: present(pb.TimingsSchema, message.timings),
    annotatedImage: annotatedImage(message.annotatedImage),
  };
}

/** Return one step of a comparison; undefined for one that is newer than this client. */
export function compareEvent({
  event,
}: pb.CompareStreamResponse): results.CompareEvent | undefined {
  if (event.case === "summary") return { type: "comparison", comparison: comparison(event.value) };
  const task = event.case === "answer" ? TASKS.get(event.value.task) : undefined;
  if (event.case !== "answer" || !task || !event.value.answer) return undefined;
  return { type: "answer", task, answer: modelAnswer(event.value.answer) };
}

/** Return a model's card. */
export function model(message: pb.Model): Model {
  const facts = present(pb.ModelFactsSchema, message.facts);
  const { detectionDefaults, accuracy } = message;
  return {
    ...fields(message),
    tasks: message.tasks.flatMap((task) => TASKS.get(task) ?? []),
    facts: {
      ...facts,
      contextWindow: facts.contextWindow,
      parameterCount: Number(facts.parameterCount),
      realTime: facts.realTime,
    },
    labelSet: present(pb.LabelSetSchema, message.labelSet),
    input: present(pb.ModelInputSchema, message.input),
    detectionDefaults: detectionDefaults && fields(detectionDefaults),
    provenance: present(pb.ProvenanceSchema, message.provenance),
    verification: present(pb.VerificationSchema, message.verification),
    receipt: message.receipt && receipt(message.receipt),
    accuracy: accuracy && fields(accuracy),
  };
}

function receipt(message: pb.Receipt): Receipt {
  const { rows, maxBoxDifferencePx, maxHeatMapDifference } = message;
  return {
    ...fields(message),
    maxBoxDifferencePx,
    maxHeatMapDifference,
    rows: rows && { ...fields(rows), count: Number(rows.count) },
    pictures: message.pictures.map((picture) => ({
      ...fields(picture),
      scoreThreshold: picture.scoreThreshold,
      maxBoxDifferencePx: picture.maxBoxDifferencePx,
      maxHeatMapDifference: picture.maxHeatMapDifference,
      sameTop1: picture.sameTop1,
    })),
  };
}

function answer(message: pb.ClassifyResponse | pb.DetectResponse) {
  return {
    servedBy: present(pb.ServedBySchema, message.servedBy),
    timings: present(pb.TimingsSchema, message.timings),
    imageSize: present(pb.ImageSizeSchema, message.imageSize),
    annotatedImage: annotatedImage(message.annotatedImage),
    heatMap: heatMap(message.heatMap),
  };
}

function modelAnswer(message: pb.ModelAnswer): results.ModelAnswer {
  const { code, message: text } = present(pb.AnswerStatusSchema, message.status);
  return {
    servedBy: present(pb.ServedBySchema, message.servedBy),
    status: { code: statusCode(code), message: text },
    classifications: message.classifications.map(fields),
    detections: message.detections.map(detection),
    timings: message.timings && fields(message.timings),
    agreement: agreement(message.agreement),
    heatMap: heatMap(message.heatMap),
  };
}

function agreement(of: pb.ModelAnswer["agreement"]): results.ModelAnswer["agreement"] {
  switch (of.case) {
    case "classificationAgreement": {
      const { jensenShannonDivergence } = of.value;
      return { kind: "classification", ...fields(of.value), jensenShannonDivergence };
    }
    case "detectionAgreement": {
      const { meanIou, meanScoreDifference } = of.value;
      const matches = of.value.matches.map(fields);
      return { kind: "detection", ...fields(of.value), meanIou, meanScoreDifference, matches };
    }
    default:
      return undefined;
  }
}

function detection(message: pb.Detection): results.Detection {
  return { ...fields(message), box: present(pb.BoundingBoxSchema, message.box) };
}

function annotatedImage(message?: pb.AnnotatedImage): results.AnnotatedImage | undefined {
  return message && { ...fields(message), size: message.size && fields(message.size) };
}

function heatMap(message?: pb.HeatMap): results.HeatMap | undefined {
  return message && { ...fields(message), area: present(pb.HeatMapAreaSchema, message.area) };
}

/** Return the fields of a message, which are its defaults if the server sent none. */
function present<Schema extends DescMessage>(schema: Schema, message?: MessageShape<Schema>) {
  return fields(message ?? create(schema));
}

/** Return a message as a plain object, without what protobuf adds to it. */
function fields<M extends Message>(message: M): Omit<M, "$typeName" | "$unknown"> {
  const { $typeName, $unknown, ...own } = message;
  return own as Omit<M, "$typeName" | "$unknown">;
}
