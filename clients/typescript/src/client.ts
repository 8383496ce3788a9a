// The client of one server; node.ts and web.ts make its connection.
import {
  type CallOptions as ConnectCallOptions,
  type Client as ServiceClient,
  createClient,
  type Transport,
} from "@connectrpc/connect";

import type { Model } from "./cards.js";
import { fromThrown, invalid, VisavisError } from "./errors.js";
import { VisionService } from "./gen/visavis/v1/vision_pb.js";
import { type ImageSource, toImage } from "./images.js";
import type { CallOptions, ClassifyOptions, CompareOptions, DetectOptions } from "./options.js";
import {
  classifyResult,
  compareEvent,
  comparison,
  detectResult,
  explainValue,
  model,
  taskValues,
} from "./reading.js";
import type { ClassifyResult, CompareEvent, Comparison, DetectResult } from "./results.js";
import { mayRepeat, pause } from "./retries.js";
import { checked } from "./settings.js";

/** What a client needs of the platform. @internal */
export interface Connection {
  transport: Transport;
  /** Default timeout of a call. */
  timeoutMs: number;
  /** Aborted by `close`. */
  closing: AbortController;
  /** Tell whether the server has loaded its models; reject if it can't be asked. */
  isReady(options: ConnectCallOptions): Promise<boolean>;
  close(): void;
}

/**
 * The calls of a client. Each rejects with a {@link VisavisError} if it fails.
 *
 * Calls that fail as UNAVAILABLE or are cut off are retried up to three times within their timeout.
 */
export abstract class Client {
  readonly #connection: Connection;
  readonly #vision: ServiceClient<typeof VisionService>;

  /** @internal */
  protected constructor(connection: Connection) {
    this.#connection = connection;
    this.#vision = createClient(VisionService, connection.transport);
  }

  /** Return one model's labels for the whole image. */
  async classify(image: ImageSource, options: ClassifyOptions): Promise<ClassifyResult> {
    const request = {
      ...options,
      image: await toImage(image),
      explain: explainValue(options.explain),
    };
    return this.#call(
      async (call) => classifyResult(await this.#vision.classify(request, call)),
      options,
    );
  }

  /** Return the objects that one model finds in the image. */
  async detect(image: ImageSource, options: DetectOptions): Promise<DetectResult> {
    const request = {
      ...options,
      image: await toImage(image),
      labels: [...(options.labels ?? [])],
      explain: explainValue(options.explain),
    };
    return this.#call(
      async (call) => detectResult(await this.#vision.detect(request, call)),
      options,
    );
  }

  /** Return the answers of all capable models for one image, side by side. */
  async compare(image: ImageSource, options: CompareOptions = {}): Promise<Comparison> {
    const request = await compareRequest(image, options);
    return this.#call(
      async (call) => comparison(await this.#vision.compare(request, call)),
      options,
    );
  }

  /**
   * Yield each model's answer as soon as it arrives, then the whole comparison.
   *
   * The timeout covers the whole stream. Leaving the loop early cancels the rest. The stream is
   * retried until its first answer has arrived.
   */
  async *compareStream(
    image: ImageSource,
    options: CompareOptions = {},
  ): AsyncGenerator<CompareEvent, void, undefined> {
    const request = await compareRequest(image, options);
    const call = this.#begin(options);
    try {
      for (let attempt = 1, begun = false; ; attempt++) {
        try {
          for await (const message of this.#vision.compareStream(request, call.options())) {
            begun = true;
            const event = compareEvent(message);
            if (event) yield event;
          }
          return;
        } catch (error) {
          if (begun || !mayRepeat(error, attempt, call.signal)) throw fromThrown(error);
        }
        await pause(attempt, call.signal);
      }
    } finally {
      call.release();
    }
  }

  /** Return the cards of all models, ordered by name, without labels and receipts. */
  async models(options: CallOptions = {}): Promise<Model[]> {
    const list = async (call: ConnectCallOptions) => {
      const { models } = await this.#vision.listModels({}, call);
      return models.map(model);
    };
    return this.#call(list, options);
  }

  /** Return one model's card, with its labels and its receipt. */
  async model(
    name: string,
    options: CallOptions & { version?: number | undefined } = {},
  ): Promise<Model> {
    const request = { model: name, version: options.version };
    const get = async (call: ConnectCallOptions) => {
      const { model: card } = await this.#vision.getModel(request, call);
      if (!card) throw new Error("the server sent no card");
      return model(card);
    };
    return this.#call(get, options);
  }

  /** Resolve once the server has loaded its models; reject when the timeout runs out. */
  async waitUntilReady(options: CallOptions = {}): Promise<void> {
    const call = this.#begin(options);
    try {
      while (!(await this.#isReady(call))) {
        if (call.isLate) {
          const message = `the server is not ready after ${call.timeoutMs} ms`;
          throw new VisavisError("DEADLINE_EXCEEDED", message);
        }
        await pause(1, call.signal);
      }
    } finally {
      call.release();
    }
  }

  /** Close the connection; calls in progress reject with the code CANCELLED. */
  close(): void {
    this.#connection.closing.abort();
    this.#connection.close();
  }

  async #call<Result>(
    make: (call: ConnectCallOptions) => Promise<Result>,
    options: CallOptions,
  ): Promise<Result> {
    const call = this.#begin(options);
    try {
      return await make(call.options());
    } catch (error) {
      throw fromThrown(error);
    } finally {
      call.release();
    }
  }

  async #isReady(call: Call): Promise<boolean> {
    try {
      return await this.#connection.isReady(call.options());
    } catch (thrown) {
      const error = fromThrown(thrown);
      if (error.code === "UNAVAILABLE" && !call.signal.aborted) return false;
      throw error;
    }
  }

  #begin({ timeoutMs = this.#connection.timeoutMs, signal, headers }: CallOptions): Call {
    if (!(timeoutMs > 0)) {
      throw invalid("timeoutMs", `timeoutMs is ${timeoutMs}; it must be above 0`);
    }
    return new Call(timeoutMs, checked(headers), this.#connection.closing.signal, signal);
  }
}

/** What ends a call: its deadline, its own signal, and the client's end. */
class Call {
  readonly #giveUpAt: number;
  readonly #ended = new AbortController();
  readonly #causes: AbortSignal[];

  constructor(
    readonly timeoutMs: number,
    private readonly headers: Headers,
    ...causes: (AbortSignal | undefined)[]
  ) {
    this.#giveUpAt = Date.now() + timeoutMs;
    this.#causes = causes.filter((cause) => cause !== undefined);
    for (const cause of this.#causes) {
      if (cause.aborted) this.#end();
      cause.addEventListener("abort", this.#end);
    }
  }

  get signal(): AbortSignal {
    return this.#ended.signal;
  }

  get isLate(): boolean {
    return Date.now() >= this.#giveUpAt;
  }

  /** Return the options of an attempt, for as long as is left. */
  options() {
    const timeoutMs = Math.max(1, Math.ceil(this.#giveUpAt - Date.now()));
    return { timeoutMs, signal: this.signal, headers: this.headers };
  }

  // Connect leaves its listeners on the signal of a call. This one ends with the call; the client's
  // and the program's would collect them.
  release(): void {
    for (const cause of this.#causes) cause.removeEventListener("abort", this.#end);
  }

  readonly #end = () => this.#ended.abort();
}

async function compareRequest(image: ImageSource, options: CompareOptions) {
  const { tasks = [], models = [], labels = [], explain, ...others } = options;
  return {
    ...others,
    image: await toImage(image),
    tasks: taskValues(tasks),
    models: [...models],
    labels: [...labels],
    explain: explainValue(explain),
  };
}
