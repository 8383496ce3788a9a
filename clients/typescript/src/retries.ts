// Repeats calls that no server has answered. All methods are read-only, so that this is safe.
import type { Interceptor } from "@connectrpc/connect";

import { fromThrown, type StatusCode } from "./errors.js";

const ATTEMPTS = 4;
const FIRST_PAUSE_MS = 100; // Doubles with each retry.

// The server is unavailable, or the call was cut off. An overloaded server is not asked again: that
// would multiply its load.
const PASSING: readonly StatusCode[] = ["UNAVAILABLE", "CANCELLED", "ABORTED"];

/** Retry unary calls, within their timeout. closing: stops retries. */
export function repeat(closing: AbortSignal): Interceptor {
  return (next) => async (request) => {
    if (request.stream) return next(request);
    for (let attempt = 1; ; attempt++) {
      try {
        return await next(request);
      } catch (error) {
        if (!mayRepeat(error, attempt, request.signal, closing)) throw error;
      }
      await pause(attempt, request.signal);
    }
  };
}

/** Return true if a failed attempt, counted from 1, may be followed by another. */
export function mayRepeat(error: unknown, attempt: number, ...ended: AbortSignal[]): boolean {
  if (attempt >= ATTEMPTS || ended.some(({ aborted }) => aborted)) return false;
  return PASSING.includes(fromThrown(error).code);
}

/** Resolve before the next attempt, or as soon as the call has ended. */
export function pause(attempt: number, ended?: AbortSignal): Promise<void> {
  return new Promise((resume) => {
    const stop = () => {
      clearTimeout(timer);
      ended?.removeEventListener("abort", stop);
      resume();
    };
    const timer = setTimeout(stop, FIRST_PAUSE_MS * 2 ** (attempt - 1));
    ended?.addEventListener("abort", stop);
  });
}
