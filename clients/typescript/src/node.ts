/**
 * The client for Node, which speaks gRPC.
 *
 * @packageDocumentation
 */
import { connect as connectSocket } from "node:net";

import { type CallOptions as ConnectCallOptions, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import { Client, type Connection } from "./client.js";
import { invalid } from "./errors.js";
import { Health, HealthCheckResponse_ServingStatus } from "./gen/grpc/health/v1/health_pb.js";
import type { ClientOptions, TlsOptions } from "./options.js";
import { headersOf, interceptors, isLoopback, timeout } from "./settings.js";

export * from "./library.js";

const ADDRESS = "127.0.0.1:8001";
// Larger than a server's limits, so that the server decides what is too large.
const ANSWER_BYTES_MAX = 96 << 20;
// Detects a dead connection; servers close connections that ping more often than every 20 s.
const PING = { pingIntervalMs: 60_000, pingTimeoutMs: 20_000 };

/**
 * A connection to one server, opened by the first call and again after it breaks.
 *
 * @example
 * ```ts
 * const client = new VisavisClient({ address: "127.0.0.1:8001" });
 * const { detections } = await client.detect(await readFile("bus.jpg"), { model: "yolov5n" });
 * client.close();
 * ```
 */
export class VisavisClient extends Client {
  /** Throws a {@link VisavisError} if the options are unusable. */
  constructor(options: ClientOptions = {}) {
    super(open(options));
  }
}

function open(options: ClientOptions): Connection {
  const { url, path, local } = parsed(options);
  const encrypted = url.startsWith("https:");
  const timeoutMs = timeout(options);
  const closing = new AbortController();
  const sessionManager = new Http2SessionManager(url, PING, {
    ...certificates(options.tls),
    ...(path === undefined ? {} : { createConnection: () => connectSocket(path) }),
  });
  const transport = createGrpcTransport({
    baseUrl: url,
    sessionManager,
    interceptors: interceptors(headersOf(options, encrypted || local), closing.signal),
    readMaxBytes: ANSWER_BYTES_MAX,
  });
  const health = createClient(Health, transport);
  return {
    transport,
    timeoutMs,
    closing,
    async isReady(call: ConnectCallOptions) {
      const { status } = await health.check({}, call);
      return status === HealthCheckResponse_ServingStatus.SERVING;
    },
    close: () => sessionManager.abort(),
  };
}

/** Return the URL of the server, the path of its socket if it has one, and whether it is here. */
function parsed({ address = ADDRESS, tls }: ClientOptions) {
  if (address.startsWith("unix:")) {
    if (tls) throw invalid("tls", "a unix socket needs no TLS");
    return { url: "http://localhost", path: address.slice("unix:".length), local: true };
  }
  const isUrl = /^https?:\/\//.test(address);
  const text = isUrl ? address : `${tls ? "https" : "http"}://${address}`;
  if (!URL.canParse(text) || (!isUrl && !/:\d+$/.test(address))) {
    const forms = `write HOST:PORT, such as ${ADDRESS}, unix:PATH, or a URL`;
    throw invalid("address", `invalid address ${JSON.stringify(address)}; ${forms}`);
  }
  const { origin, protocol, hostname } = new URL(text);
  if (tls && protocol === "http:") {
    throw invalid("address", `tls is given, but the address ${address} begins with http:`);
  }
  return { url: origin, path: undefined, local: isLoopback(hostname) };
}

function certificates(tls: ClientOptions["tls"]) {
  const { ca, certificate, privateKey }: TlsOptions = typeof tls === "object" ? tls : {};
  if ((certificate === undefined) !== (privateKey === undefined)) {
    throw invalid("tls", "a client certificate needs its private key; give both or neither");
  }
  const pem = (text: string | Uint8Array) => (typeof text === "string" ? text : Buffer.from(text));
  return {
    ...(ca === undefined ? {} : { ca: pem(ca) }),
    ...(certificate === undefined ? {} : { cert: pem(certificate) }),
    ...(privateKey === undefined ? {} : { key: pem(privateKey) }),
  };
}
