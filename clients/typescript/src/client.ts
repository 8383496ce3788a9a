// What runs in browsers and in Node alike, over any of Connect's transports.
import {
  type Client as ServiceClient,
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
