// What both platforms check of a client's options.
import type { Interceptor } from "@connectrpc/connect";

import { invalid } from "./errors.js";
import type { ClientOptions } from "./options.js";
import { repeat } from "./retries.js";

const TIMEOUT_MS = 30_000;
const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/;

/** Return the default timeout of a call. Throws a VisavisError. */
export function timeout({ timeoutMs = TIMEOUT_MS }: ClientOptions): number {
  if (timeoutMs > 0) return timeoutMs;
  throw invalid("timeoutMs", `timeoutMs is ${timeoutMs}; it must be above 0`);
}

/** Return true if the host of a URL is this machine. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(host);
}

/** Return headers as the platform has them. Throws a VisavisError. */
export function checked(headers: Readonly<Record<string, string>> = {}): Headers {
  const own = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    if (name.toLowerCase() === "authorization") {
      throw invalid("headers", "the header authorization is set by the option `token`");
    }
    try {
      own.set(name, value);
    } catch (error) {
      throw invalid("headers", `the header ${JSON.stringify(name)} is unusable: ${error}`);
    }
  }
  return own;
}

/** Return the headers of every call. Throws a VisavisError. safe: the token may be sent. */
export function headersOf(options: ClientOptions, safe: boolean): Headers {
  const headers = checked(options.headers);
  const { token, address } = options;
  if (token === undefined) return headers;
  if (!safe) throw invalid("token", `the token for ${address} would be sent in the clear; use TLS`);
  if (!/^[!-~]+$/.test(token)) {
    throw invalid("token", "the token is empty or has characters that a header can't have");
  }
  headers.set("authorization", `Bearer ${token}`);
  return headers;
}

/** Return what every call passes through: retries, and headers that a call may replace. */
export function interceptors(headers: Headers, closing: AbortSignal): Interceptor[] {
  const complete: Interceptor = (next) => (request) => {
    for (const [name, value] of headers) {
      if (!request.header.has(name)) request.header.set(name, value);
    }
    return next(request);
  };
  return [repeat(closing), complete];
}
