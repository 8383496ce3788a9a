// What the calls return: plain values, which JSON.stringify accepts.
import type { Model } from "./cards.js";
import type { StatusCode } from "./errors.js";
import type { Task } from "./options.js";

/** Size of a picture in upright orientation, in pixels. */
export interface ImageSize {
  width: number;
  height: number;
}

/** A rectangle in pixels of the upright picture; (0, 0) is the top left corner. */
export interface Box {
  xMin: number;
  yMin: number;
  xMax: number;
  yMax: number;
}

/** One label for the whole image. */
export interface Classification {
  /** Index of the label in the model's label set. */
  classId: number;
  label: string;
  /** Probability of this label. Range [0, 1]. */
  score: number;
}

/** One object found in the image. */
export interface Detection {
  box: Box;
  /** Index of the label in the model's label set. */
  classId: number;
  label: string;
  /** Probability of this label. Range [0, 1]. */
  score: number;
}

/** The model that answered, and how it ran. */
export interface ServedBy {
  model: string;
  version: number;
  /** Number format of the weights: fp32, fp16 or int8. */
  precision: string;
  /** ONNX Runtime's name of the execution provider, such as CPUExecutionProvider. */
  executionProvider: string;
  /** True if the weights are random, which makes the answer meaningless. */
  randomWeights: boolean;
}

/** Time that a request spent in each stage, in milliseconds. */
export interface Timings {
  queueMs: number;
  decodeMs: number;
  preprocessMs: number;
  inferenceMs: number;
  postprocessMs: number;
  totalMs: number;
}

/** A picture that the server has drawn on. */
export interface AnnotatedImage {
  /** The bytes of the file. */
  encoded: Uint8Array;
  /** Media type of the file, such as image/jpeg. */
  mediaType: string;
  /** Size of the drawn picture; smaller than the original if the file would become too large. */
  size: ImageSize | undefined;
}

/** How much each cell of a grid over a part of the picture speaks for a label. */
export interface HeatMap {
  /** Index of the label in the model's label set. */
  classId: number;
  label: string;
  /** Number of columns. */
  width: number;
  /** Number of rows. */
  height: number;
  /**
   * One value for each cell, row by row, from the top. Classifiers: the class activation map, of
   * any range. Detectors: scores in [0, 1].
   */
  values: number[];
  /** The smallest value. */
  min: number;
  /** The largest value. */
  max: number;
  /** The part of the picture that the cells cover; may exceed it by a part of a cell. */
  area: Box;
}

interface Answer {
  /** The model that answered. */
  servedBy: ServedBy;
  timings: Timings;
  /** Size of the upright picture; boxes are in its pixels. */
  imageSize: ImageSize;
  /** Present if `annotate` was true. */
  annotatedImage: AnnotatedImage | undefined;
  /** Present if `explain` was set. */
  heatMap: HeatMap | undefined;
}

/** One model's labels for an image. */
export interface ClassifyResult extends Answer {
  /** Highest score first. */
  classifications: Classification[];
}

/** One model's detections in an image. */
export interface DetectResult extends Answer {
  /** Highest score first. */
  detections: Detection[];
}

/** How far two classifiers agree on one image. */
export interface ClassificationAgreement {
  kind: "classification";
  /** True if both rank the same label first. */
  sameTop1: boolean;
  /** Fraction of the top k labels that both share, in any order. Range [0, 1]. */
  topKOverlap: number;
  /** Base 2, over all labels. Range [0, 1]. Undefined if the label sets differ. */
  jensenShannonDivergence: number | undefined;
  /** Number of this model's top k labels that the baseline lacks; they are left out. */
  unknownHere: number;
  /** Number of the baseline's top k labels that this model lacks; they are left out. */
  unknownInBaseline: number;
}

/** A matched pair of detections: their indexes in this answer and in the baseline's. */
export interface DetectionMatch {
  index: number;
  baselineIndex: number;
  iou: number;
}

/** How far two detectors agree on one image. The means are undefined if nothing matches. */
export interface DetectionAgreement {
  kind: "detection";
  matched: number;
  /** Number of this model's detections without a match. */
  onlyHere: number;
  /** Number of the baseline's detections without a match. */
  onlyInBaseline: number;
  meanIou: number | undefined;
  meanScoreDifference: number | undefined;
  /** 2 * matched / (detections of both). Range [0, 1]; 1 if neither has detections. */
  f1: number;
  /** The pairs, highest IoU first. */
  matches: DetectionMatch[];
  /** Number of this model's detections whose label the baseline lacks; they are left out. */
  unknownHere: number;
  /** Number of the baseline's detections whose label this model lacks; they are left out. */
  unknownInBaseline: number;
}

/** Outcome of one model's run. */
export interface AnswerStatus {
  /** OK if the model answered. */
  code: StatusCode;
  /** Empty if the model answered. */
  message: string;
}

/** One model's answer, or the reason that it has none. */
export interface ModelAnswer {
  servedBy: ServedBy;
  status: AnswerStatus;
  /** Highest score first. Empty for detectors, and if the status is not OK. */
  classifications: Classification[];
  /** Highest score first. Empty for classifiers, and if the status is not OK. */
  detections: Detection[];
  /** Undefined if the status is not OK. */
  timings: Timings | undefined;
  /** Undefined for the baseline, if one of the two has no answer, and in a stream's answers. */
  agreement: ClassificationAgreement | DetectionAgreement | undefined;
  /** Present if `explain` was set and the status is OK. */
  heatMap: HeatMap | undefined;
}

/** The answers of all models that were compared on one task. */
export interface TaskComparison {
  task: Task;
  /** Name of the model that the others are compared with. */
  baseline: string;
  answers: ModelAnswer[];
  /** Why nothing is compared, as a sentence. Empty if two or more models are capable. */
  nothingToCompare: string;
}

/** A model that a comparison did not run, and the reason. */
export interface LeftOutModel {
  model: string;
  reason: string;
}

/** The answers of all models, side by side. */
export interface Comparison {
  comparisons: TaskComparison[];
  leftOut: LeftOutModel[];
  /** Cards of the models that were run, ordered by name; without labels and receipts. */
  models: Model[];
  imageSize: ImageSize;
  timings: Timings;
  /** The answers drawn side by side. Present if `annotate` or `annotateDifference` was true. */
  annotatedImage: AnnotatedImage | undefined;
}

/** One step of a streamed comparison: a model's answer, or at last the whole comparison. */
export type CompareEvent =
  | { type: "answer"; task: Task; answer: ModelAnswer }
  | { type: "comparison"; comparison: Comparison };
