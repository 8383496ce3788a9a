// The server's RPCs by the Connect protocol: protobuf's JSON over fetch, streams in envelopes.

const SERVICE = "visavis.v1.VisionService";
const TIMEOUT_MS = 60_000;
const HEADER_BYTES = 5; // one of flags, four of the message's length
const END_OF_STREAM = 2;

/** The error of a failed call: `code` is the name of its gRPC status, in lower case. */
export class Failure extends Error {
  constructor(code, message, requestId = null) {
    super(message);
    this.code = code;
    this.requestId = requestId;
  }
}

/** The server of this page. */
export class Server {
  /** Sent with every call unless empty. */
  token = "";

  /** Return the response to a request. Throws Failure. */
  async call(method, request) {
    const response = await this.#post(method, "application/json", JSON.stringify(request));
    return response.json();
  }

  /** Yield the responses to a request as they arrive. Throws Failure. signal: cancels the call. */
  async *stream(method, request, signal) {
    const body = envelope(request);
    const response = await this.#post(method, "application/connect+json", body, signal);
    for await (const { flags, message } of messages(response.body)) {
      if (!(flags & END_OF_STREAM)) {
        yield message;
      } else if (message.error) {
        throw failure(message.error, response);
      } else {
        return;
      }
    }
    throw new Failure("unavailable", "the connection was lost during the response");
  }

  async #post(method, type, body, signal) {
    const headers = {
      "content-type": type,
      "connect-protocol-version": "1",
      "connect-timeout-ms": TIMEOUT_MS,
    };
    if (this.token) headers.authorization = `Bearer ${this.token}`;
    const response = await reached(
      fetch(`${SERVICE}/${method}`, { method: "POST", headers, body, signal }),
    );
    if (response.ok) return response;
    const text = await response.text();
    try {
      throw failure(JSON.parse(text), response);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      // The response is from a proxy, not from the service.
      throw new Failure("unknown", `HTTP ${response.status}: ${text.trim().slice(0, 512)}`);
    }
  }
}

/** Return the result of a fetch. Throws Failure if the server can't be reached. */
async function reached(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("unavailable", "the server can’t be reached; is it still running?");
  }
}

function failure({ code, message }, response) {
  return new Failure(code, message ?? "", response.headers.get("x-request-id"));
}

function envelope(request) {
  const message = new TextEncoder().encode(JSON.stringify(request));
  const whole = new Uint8Array(HEADER_BYTES + message.length);
  new DataView(whole.buffer).setUint32(1, message.length);
  whole.set(message, HEADER_BYTES);
  return whole;
}

/** Yield the messages of a stream of bytes, each with its flags. */
async function* messages(stream) {
  const reader = stream.getReader();
  let unread = new Uint8Array();
  for (;;) {
    const { done, value } = await reached(reader.read());
    if (done) return;
    unread = joined(unread, value);
    while (unread.length >= HEADER_BYTES) {
      const length = new DataView(unread.buffer, unread.byteOffset).getUint32(1);
      const end = HEADER_BYTES + length;
      if (unread.length < end) break;
      const message = JSON.parse(new TextDecoder().decode(unread.subarray(HEADER_BYTES, end)));
      yield { flags: unread[0], message };
      unread = unread.subarray(end);
    }
  }
}

function joined(one, other) {
  const whole = new Uint8Array(one.length + other.length);
  whole.set(one);
  whole.set(other, one.length);
  return whole;
}
