// A model's card: its properties, origin and proof. An empty string is unknown.
import type { Task } from "./options.js";

/** Facts to compare models by. */
export interface ModelFacts {
  /** Architecture, such as ResNet-50. */
  architecture: string;
  organization: string;
  category: string;
  /** Input and output, such as image to labels. */
  modality: string;
  /** Date of first publication: YYYY, YYYY-MM or YYYY-MM-DD. */
  releaseDate: string;
  contextWindow: number | undefined;
  /** Number of trained parameters. 0: unknown. */
  parameterCount: number;
  codeLicense: string;
  weightsLicense: string;
  realTime: boolean | undefined;
  /** Source of each fact, by field name of the contract. */
  sources: Record<string, string>;
}

/** A named list of classes. Models that share one are compared by class id. */
export interface LabelSet {
  /** Name of the set, such as imagenet-1k. */
  name: string;
  size: number;
  /** Labels, by class id. Empty in lists. */
  labels: string[];
}

/** The size of a model's input in pixels, and how an image is resized to it. */
export interface ModelInput {
  width: number;
  height: number;
  resize: string;
}

/** Defaults for requests that do not set these values. */
export interface DetectionDefaults {
  scoreThreshold: number;
  iouThreshold: number;
  maxDetections: number;
}

/** Origin of a model file. */
export interface Provenance {
  weightsSource: string;
  weightsSha256: string;
  exporter: string;
  exportedAt: string;
  /** Versions of the libraries used, by name. */
  libraries: Record<string, string>;
  conversion: string;
}

/** Checks that passed when the model was loaded. */
export interface Verification {
  digest: boolean;
  goldenSample: boolean;
}

/** A detector's candidates before non-maximum suppression, compared row by row. */
export interface RowComparison {
  count: number;
  maxScoreDifference: number;
  maxBoxDifferencePx: number;
}

/** The comparison on one picture of the receipt. */
export interface ReceiptPicture {
  name: string;
  width: number;
  height: number;
  scoreThreshold: number | undefined;
  compared: number;
  excused: number;
  maxScoreDifference: number;
  maxBoxDifferencePx: number | undefined;
  maxHeatMapDifference: number | undefined;
  sameTop1: boolean | undefined;
  onlyHere: number;
  onlyInOriginal: number;
}

/** How closely a file follows its PyTorch original. A tolerance of 0 is no limit. */
export interface Receipt {
  madeAt: string;
  scoreTolerance: number;
  boxTolerancePx: number;
  heatMapTolerance: number;
  maxScoreDifference: number;
  maxBoxDifferencePx: number | undefined;
  /** Undefined if no heat maps were compared. */
  maxHeatMapDifference: number | undefined;
  rows: RowComparison | undefined;
  pictures: ReceiptPicture[];
}

/** Accuracy of a file and of its PyTorch original on the same labelled pictures. */
export interface Accuracy {
  /** "top-1" or "mAP50-95". */
  metric: string;
  value: number;
  original: number;
  /** Number of pictures. */
  pictures: number;
  source: string;
  heldOut: boolean;
  /** Standard error of the difference between the two. */
  error: number;
}

/** A model's card. */
export interface Model {
  name: string;
  /** The version that this card describes. */
  version: number;
  /** All versions that can be requested, ascending. */
  versions: number[];
  tasks: Task[];
  /** Number format of the weights: fp32, fp16 or int8. */
  precision: string;
  /** Name of the model whose weights this model has in another precision. */
  variantOf: string;
  executionProvider: string;
  /** True if the weights are random, which makes the answers meaningless. */
  randomWeights: boolean;
  facts: ModelFacts;
  labelSet: LabelSet;
  input: ModelInput;
  /** Undefined for classifiers. */
  detectionDefaults: DetectionDefaults | undefined;
  provenance: Provenance;
  verification: Verification;
  /** Undefined in lists, and if the file has none. */
  receipt: Receipt | undefined;
  /** Undefined if no labels were given at export. */
  accuracy: Accuracy | undefined;
}
