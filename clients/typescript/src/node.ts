// The part for Node: native gRPC, and the server's health.
import { setTimeout as sleep } from "node:timers/promises";

import { Code, ConnectError, createClient as createServiceClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import { bearer, type Client, createClient, repeat } from "./client.js";
import { Health, HealthCheckResponse_ServingStatus } from "./gen/grpc/health/v1/health_pb.js";

export * from "./client.js";

const POLL_MS = 100;
const MAX_ANSWER_BYTES = 96 << 20;

export interface Settings {
  /** PEM certificates of the trusted authorities. Default: the public ones. */
  ca?: Buffer;
  /** Sent with every call; requires TLS. */
  token?: string;
  /** Default timeout of a call in milliseconds. Default: 30,000. */
  timeoutMs?: number;
}

export interface NodeClient extends Client {
  /** Resolve once the server has loaded its models; reject when the timeout runs out. */
  waitUntilReady(timeoutMs?: number): Promise<void>;
  /** Close the connection and cancel the calls in progress. */
  close(): void;
}

/** Return a client of the server at http://HOST:PORT, or https:// for TLS. */
export function connect(url: string, { ca, token, timeoutMs = 30_000 }: Settings = {}): NodeClient {
  if (token && !url.startsWith("https:")) {
    throw new Error(`a token requires TLS; use https:// instead of ${url}`);
  }
  const closing = new AbortController();
  const sessionManager = new Http2SessionManager(url, {}, { ca });
  const transport = createGrpcTransport({
    baseUrl: url,
    sessionManager,
    interceptors: [repeat(closing.signal), ...(token ? [bearer(token)] : [])],
    defaultTimeoutMs: timeoutMs,
    readMaxBytes: MAX_ANSWER_BYTES,
  });
  const health = createServiceClient(Health, transport);
  return {
    ...createClient(transport),
    async waitUntilReady(timeoutMs = 30_000) {
      const giveUpAt = Date.now() + timeoutMs;
      for (;;) {
        const remaining = Math.max(1, giveUpAt - Date.now());
        try {
          const { status } = await health.check({}, { timeoutMs: remaining });
          if (status === HealthCheckResponse_ServingStatus.SERVING) return;
        } catch (error) {
          const unavailable = ConnectError.from(error).code === Code.Unavailable;
          if (!unavailable || remaining === 1) throw error;
        }
        await sleep(POLL_MS);
      }
    },
    close() {
      closing.abort();
      sessionManager.abort();
    },
  };
}
