// The error of a failed call, with the server's details.
import { Code, ConnectError } from "@connectrpc/connect";

import {
  BadRequestSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";

/** Names of the gRPC statuses. */
export type StatusCode = (typeof CODES)[number];

// By number.
const CODES = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
] as const;

// What Chromium, Firefox and Safari say when a fetch has no response.
const UNFETCHED = /^(Failed to fetch|NetworkError when|Load failed)/;

// What Connect says in Node when the connection ends during a call, and when a proxy resets one. A
// call that its signal cancels says otherwise.
const CUT_OFF = /^http\/2 stream closed with error code CANCEL/;

/** One invalid field of a request: its path in the contract's message, and the reason. */
export interface FieldViolation {
  field: string;
  description: string;
}

interface Details {
  violations?: FieldViolation[];
  requestId?: string | undefined;
  retryAfterMs?: number | undefined;
  cause?: unknown;
}

/**
 * A call that failed, or arguments that no call can be made with.
 *
 * - `INVALID_ARGUMENT`: the request is invalid; `field` names the field.
 * - `NOT_FOUND`: no such model or version.
 * - `UNAUTHENTICATED`, `PERMISSION_DENIED`: the token is missing, wrong or lacks permission.
 * - `RESOURCE_EXHAUSTED`: the server is overloaded; try again after `retryAfterMs`.
 * - `DEADLINE_EXCEEDED`: the timeout ran out, or the server predicted that it would.
 * - `UNAVAILABLE`: no server answers, it is starting or stopping, or the call was cut off on the way.
 * - `CANCELLED`: the call was cancelled by its signal or by `close`.
 * - `INTERNAL` and others: the server failed; its log has details under `requestId`.
 */
export class VisavisError extends Error {
  override readonly name = "VisavisError";
  /** Name of the gRPC status. */
  readonly code: StatusCode;
  /** All invalid fields of the request. */
  readonly violations: readonly FieldViolation[];
  /** The call's id in the server's log. */
  readonly requestId: string | undefined;
  /** Time to wait before a retry, as the server requests. */
  readonly retryAfterMs: number | undefined;

  /** @internal */
  constructor(code: StatusCode, message: string, details: Details = {}) {
    super(message, { cause: details.cause });
    this.code = code;
    this.violations = details.violations ?? [];
    this.requestId = details.requestId;
    this.retryAfterMs = details.retryAfterMs;
  }

  /** Path of the first invalid field, such as `top_k`. */
  get field(): string | undefined {
    return this.violations[0]?.field;
  }
}

/** Return the name of a status; UNKNOWN for a number that gRPC does not have. */
export function statusCode(number: number): StatusCode {
  return CODES[number] ?? "UNKNOWN";
}

/** Return the error for an option that can't be used. */
export function invalid(field: string, message: string): VisavisError {
  return new VisavisError("INVALID_ARGUMENT", message, {
    violations: [{ field, description: message }],
  });
}

/** Return the error for whatever a call threw. */
export function fromThrown(thrown: unknown): VisavisError {
  if (thrown instanceof VisavisError) return thrown;
  const status = ConnectError.from(thrown);
  const [badRequest] = status.findDetails(BadRequestSchema);
  const [requestInfo] = status.findDetails(RequestInfoSchema);
  const [retryInfo] = status.findDetails(RetryInfoSchema);
  const delay = retryInfo?.retryDelay;
  const cutOff = CUT_OFF.test(status.rawMessage);
  const code = cutOff || neverArrived(status) ? "UNAVAILABLE" : statusCode(status.code);
  const message = cutOff
    ? "the connection ended before the answer: the server stopped, or requires a client certificate"
    : status.rawMessage.trim() || Code[status.code];
  return new VisavisError(code, message, {
    violations: (badRequest?.fieldViolations ?? []).map(({ field, description }) => ({
      field,
      description,
    })),
    requestId: requestInfo?.requestId || undefined,
    retryAfterMs: delay && Number(delay.seconds) * 1000 + delay.nanos / 1e6,
    cause: thrown,
  });
}

/**
 * Return true if no server answered: Connect reports a failed TLS handshake or a broken connection
 * as INTERNAL or ABORTED, and a failed fetch as UNKNOWN, always with the platform's own error.
 */
function neverArrived({ code, cause }: ConnectError): boolean {
  if (![Code.Internal, Code.Aborted, Code.Unknown].includes(code)) return false;
  return cause instanceof Error && ("code" in cause || UNFETCHED.test(cause.message));
}
