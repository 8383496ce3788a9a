// The part that runs in browsers and in Node, over any Connect transport.
import {
  type Client as ServiceClient,
  Code,
  ConnectError,
  createClient as createServiceClient,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";

import { BadRequestSchema, RequestInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { VisionService } from "./gen/visavis/v1/vision_pb.js";

export * from "./gen/visavis/v1/vision_pb.js";

/** The RPCs of visavis as methods; messages are plain objects. */
export type Client = ServiceClient<typeof VisionService>;

/** Return a client that uses a transport. */
export function createClient(transport: Transport): Client {
  return createServiceClient(VisionService, transport);
}

/** Return the bytes of a JPEG, PNG or WebP file as a request's image. */
export function encoded(file: Uint8Array) {
  return { source: { case: "encoded", value: file } } as const;
}

/** Send a token with every call. The transport must be encrypted. */
export function bearer(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

const ATTEMPTS = 4;
const FIRST_PAUSE_MS = 100; // Doubles with each retry.

// The server is unavailable, or Node reports a broken connection.
const PASSING = [Code.Unavailable, Code.Canceled, Code.Aborted];

/**
 * Retry calls that fail as UNAVAILABLE or are cut off, up to four attempts within their timeout.
 * All methods are read-only, so retries are safe. Streams are not retried. closing: stops retries.
 */
export function repeat(closing?: AbortSignal): Interceptor {
  return (next) => async (request) => {
    if (request.stream) return next(request);
    let pauseMs = FIRST_PAUSE_MS;
    for (let attempt = 1; ; attempt++) {
      try {
        return await next(request);
      } catch (error) {
        const over = attempt === ATTEMPTS || request.signal.aborted || closing?.aborted;
        if (over || !PASSING.includes(ConnectError.from(error).code)) throw error;
      }
      await pause(pauseMs, request.signal);
      pauseMs *= 2;
    }
  };
}

/** Resolve after a delay, or as soon as the call has ended. */
function pause(ms: number, ended: AbortSignal): Promise<void> {
  return new Promise((resume) => {
    const timer = setTimeout(resume, ms);
    ended.addEventListener("abort", () => (clearTimeout(timer), resume()), { once: true });
  });
}

/** The error of a failed call. */
export interface Failure {
  /** Name of the gRPC status, such as INVALID_ARGUMENT. */
  code: string;
  /** A message for people. */
  message: string;
  /** Path of the first invalid field, such as top_k. */
  field: string | undefined;
  /** The call's id in the server's log. */
  requestId: string | undefined;
}

/** Return the details of an error that a call threw. */
export function failure(error: unknown): Failure {
  const status = ConnectError.from(error);
  const [badRequest] = status.findDetails(BadRequestSchema);
  const [requestInfo] = status.findDetails(RequestInfoSchema);
  return {
    code: codeToString(status.code).toUpperCase(),
    message: status.rawMessage,
    field: badRequest?.fieldViolations[0]?.field,
    requestId: requestInfo?.requestId,
  };
}
