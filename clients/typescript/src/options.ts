// The options of a client and of its calls.

/** How a client reaches its server. */
export interface ClientOptions {
  /**
   * The server. In Node `HOST:PORT`, `unix:PATH` or a URL of its gRPC listener; by default
   * `127.0.0.1:8001`. In browsers the URL of its HTTP listener; by default the page's origin.
   */
  address?: string | undefined;
  /** True or certificates for TLS. Node only: in browsers the URL begins with `https:`. */
  tls?: boolean | TlsOptions | undefined;
  /** Sent with every call; only over TLS, to this machine, or to the page's own origin. */
  token?: string | undefined;
  /** Sent with every call. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** Default timeout of a call in milliseconds, retries included. Default: 30,000. */
  timeoutMs?: number | undefined;
  /** The protocol over HTTP. Browsers only; Node speaks gRPC. Default: `connect`. */
  protocol?: "connect" | "grpc-web" | undefined;
}

/** Certificates in PEM format. */
export interface TlsOptions {
  /** The trusted authorities. Default: the public ones. */
  ca?: string | Uint8Array | undefined;
  /** The client's own certificate, for servers that require one; needs `privateKey`. */
  certificate?: string | Uint8Array | undefined;
  /** The private key of `certificate`. */
  privateKey?: string | Uint8Array | undefined;
}

/** Options of every call. */
export interface CallOptions {
  /** Timeout in milliseconds, retries included. Default: the client's. */
  timeoutMs?: number | undefined;
  /** Cancels the call, which rejects with the code `CANCELLED`. */
  signal?: AbortSignal | undefined;
  /** Sent with this call, in addition to the client's; replaces those of the same name. */
  headers?: Readonly<Record<string, string>> | undefined;
}

/** What a model can do with an image. */
export type Task = "classification" | "detection";

interface ModelChoice {
  /** Name of the model. */
  model: string;
  /** Version of the model. Default: the highest. */
  version?: number | undefined;
}

interface Annotation {
  /** True to receive the picture with the answer drawn on it. */
  annotate?: boolean | undefined;
  /** True to receive a heat map of the best label, or the label of which to receive one. */
  explain?: boolean | string | undefined;
}

interface DetectorOptions {
  /** Detections with a score above this are returned. Range [0, 1]. Default: the model's. */
  scoreThreshold?: number | undefined;
  /** Non-maximum suppression drops the lower-scored of two boxes whose IoU exceeds this. */
  iouThreshold?: number | undefined;
  /** Maximum number of detections. Range [1, 1000]. */
  maxDetections?: number | undefined;
  /** Labels to keep. Default: all. */
  labels?: readonly string[] | undefined;
  /** True to let boxes of different labels suppress each other. */
  classAgnostic?: boolean | undefined;
}

/** Options of `classify`. */
export interface ClassifyOptions extends ModelChoice, Annotation, CallOptions {
  /** Number of labels to return, from 1. Default: 5. */
  topK?: number | undefined;
}

/** Options of `detect`. */
export interface DetectOptions extends ModelChoice, DetectorOptions, Annotation, CallOptions {}

/** Options of `compare` and `compareStream`. */
export interface CompareOptions extends DetectorOptions, Annotation, CallOptions {
  /** Tasks to compare. Default: all. */
  tasks?: readonly Task[] | undefined;
  /** Names of the models to compare. Default: all that are capable of one of the tasks. */
  models?: readonly string[] | undefined;
  /** Name of the model that the others are compared with. Default: the first of `models`. */
  baseline?: string | undefined;
  /** Number of labels of each classifier, from 1. Default: 5. */
  topK?: number | undefined;
  /**
   * True to receive the answers drawn side by side, as with `annotate`, with the boxes in three
   * colours: in both answers, only here, only in the baseline.
   */
  annotateDifference?: boolean | undefined;
}
