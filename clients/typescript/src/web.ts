/**
 * The client for browsers, which speaks Connect or gRPC-Web to the server's HTTP listener.
 *
 * @packageDocumentation
 */
import type { CallOptions as ConnectCallOptions } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";

import { Client, type Connection } from "./client.js";
import { invalid, VisavisError } from "./errors.js";
import type { ClientOptions } from "./options.js";
import { headersOf, interceptors, isLoopback, timeout } from "./settings.js";

export * from "./library.js";

/**
 * A client of one server.
 *
 * @example
 * ```ts
 * const client = new VisavisClient({ address: "https://vision.example.org" });
 * const { detections } = await client.detect(file, { model: "yolov5n" });
 * ```
 */
export class VisavisClient extends Client {
  /** Throws a {@link VisavisError} if the options are unusable. */
  constructor(options: ClientOptions = {}) {
    super(open(options));
  }
}

function open(options: ClientOptions): Connection {
  const base = baseUrl(options);
  const { protocol, hostname, origin } = base;
  const own = origin === globalThis.location?.origin;
  const sent = headersOf(options, protocol === "https:" || isLoopback(hostname) || own);
  const timeoutMs = timeout(options);
  const closing = new AbortController();
  const create = options.protocol === "grpc-web" ? createGrpcWebTransport : createConnectTransport;
  const transport = create({
    baseUrl: base.href.replace(/\/+$/, ""),
    interceptors: interceptors(sent, closing.signal),
    // The contract's messages are smaller in binary, and pictures are not Base64.
    useBinaryFormat: true,
  });
  return {
    transport,
    timeoutMs,
    closing,
    isReady: (call) => isReady(new URL("readyz", base), sent, call),
    close: () => {},
  };
}

function baseUrl({ address = globalThis.location?.origin, tls }: ClientOptions): URL {
  if (tls) throw invalid("tls", "browsers trust their own authorities; use a URL with https:");
  if (address === undefined || !/^https?:\/\//.test(address) || !URL.canParse(address)) {
    const text = JSON.stringify(address) ?? "(none)";
    throw invalid(
      "address",
      `invalid address ${text}; write the URL of the server's HTTP listener`,
    );
  }
  return new URL(address.endsWith("/") ? address : `${address}/`);
}

async function isReady(url: URL, headers: Headers, call: ConnectCallOptions): Promise<boolean> {
  const timeout = AbortSignal.timeout(call.timeoutMs ?? 0);
  const signal = call.signal ? AbortSignal.any([call.signal, timeout]) : timeout;
  try {
    const { status, ok } = await fetch(url, { headers, signal });
    if (status === 401 || status === 403) {
      throw new VisavisError("UNAUTHENTICATED", `the server answered with HTTP ${status}`);
    }
    return ok;
  } catch (cause) {
    if (cause instanceof VisavisError) throw cause;
    if (timeout.aborted)
      throw new VisavisError("DEADLINE_EXCEEDED", "the server is not ready", { cause });
    const code = call.signal?.aborted ? "CANCELLED" : "UNAVAILABLE";
    throw new VisavisError(code, `no answer from ${url.origin}`, { cause });
  }
}
