// What runs in browsers and in Node alike, over any of Connect's transports.
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

/** The contract's RPCs as methods; messages are plain objects. */
export type Client = ServiceClient<typeof VisionService>;

/** Return a client of the server that the transport leads to. */
export function createClient(transport: Transport): Client {
  return createServiceClient(VisionService, transport);
}

/** Return the bytes of a JPEG, PNG or WebP file as a request's image. */
export function encoded(file: Uint8Array) {
  return { source: { case: "encoded", value: file } } as const;
}

/** Show the server a token with every call. Its transport must be encrypted. */
export function bearer(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

const ATTEMPTS = 4;
const FIRST_PAUSE_MS = 100; // It doubles.

// No answer for now, and what Node says of a call whose connection breaks.
const PASSING = [Code.Unavailable, Code.Canceled, Code.Aborted];

/**
 * Make a call again that meets UNAVAILABLE or is cut off, up to four times within its timeout.
 * All methods only read, so a call may be made again; a stream is not. closing: ends that.
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

/** Resolve after a time, or as soon as a call has ended. */
function pause(ms: number, ended: AbortSignal): Promise<void> {
  return new Promise((resume) => {
    const timer = setTimeout(resume, ms);
    ended.addEventListener("abort", () => (clearTimeout(timer), resume()), { once: true });
  });
}

/** Why a call failed. */
export interface Failure {
  /** Name of the gRPC status, such as INVALID_ARGUMENT. */
  code: string;
  /** What went wrong, for a person. */
  message: string;
  /** Path of the first field that was wrong, such as top_k. */
  field: string | undefined;
  /** The id under which the server logged the call. */
  requestId: string | undefined;
}

/** Return what an error that a call threw says. */
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
