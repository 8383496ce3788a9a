// What a program does with the library, however it has loaded it; returns what it saw.
const { getEventListeners } = require("node:events");
const { readFileSync } = require("node:fs");

module.exports = async ({ VisavisClient, VisavisError }, [plain, socket, tls, ...rest]) => {
  const [ca, certificate, privateKey] = rest.slice(0, 3).map((path) => readFileSync(path));
  const token = rest[3];
  const image = Buffer.from("jpeg");
  const seen = {};

  /** Return what an error says that a call must throw. */
  const refusal = async (call) => {
    try {
      await call();
    } catch (error) {
      const { code, message, field, requestId, retryAfterMs } = error;
      return {
        typed: error instanceof VisavisError,
        code,
        message,
        field,
        requestId,
        retryAfterMs,
      };
    }
    return "no error";
  };

  const client = new VisavisClient({ address: plain, headers: { "X-Team": "vision" } });
  await client.waitUntilReady();
  seen.models = (await client.models()).map(({ name, tasks, facts }) => [
    name,
    tasks,
    facts.parameterCount,
  ]);
  const card = await client.model("yolov5n");
  seen.card = JSON.parse(JSON.stringify(card));
  const { classifications } = await client.classify(image, { model: "resnet50" });
  seen.labels = classifications.map(({ label }) => label);
  const detected = await client.detect(image, {
    model: "yolov5n",
    scoreThreshold: 0,
    labels: ["bus"],
    annotate: true,
    explain: "bus",
  });
  seen.detected = JSON.parse(JSON.stringify({ ...detected, annotatedImage: undefined }));
  seen.drawn = Buffer.from(detected.annotatedImage.encoded).toString("hex");
  const raw = { format: "BGR", width: 2, height: 1, data: new Uint8Array(6) };
  const chosen = { tasks: ["detection"], models: ["a", "b"], baseline: "b", explain: false };
  seen.unexplained = await client.compare(raw, { ...chosen, annotateDifference: true });
  seen.difference = Buffer.from(seen.unexplained.annotatedImage.encoded).toString("hex");
  seen.streamed = [];
  for await (const event of client.compareStream(image, { explain: "", annotateDifference: true })) {
    if (event.type === "answer") seen.streamed.push(event.answer.servedBy.model);
    else seen.compared = JSON.parse(JSON.stringify(event.comparison));
  }

  const classify = (options) => client.classify(image, { model: "resnet50", ...options });
  const { heatMap } = await classify({ explain: true });
  seen.explained = JSON.parse(JSON.stringify(heatMap));
  const headers = { "x-request-id": "mine", "x-team": "audio" };
  seen.invalid = await refusal(() => classify({ topK: 0, headers }));
  seen.overloaded = await refusal(() => classify({ model: "busy" }));
  seen.late = await refusal(() => classify({ model: "slow", timeoutMs: 100 }));
  const aborter = new AbortController();
  setTimeout(() => aborter.abort(), 100);
  seen.aborted = await refusal(() => classify({ model: "slow", signal: aborter.signal }));
  const loading = await classify({ model: "starting" });
  seen.repeated = loading.classifications.length;
  for await (const event of client.compareStream(image, { models: ["starting"] })) {
    seen.streamRepeated = event.type;
  }
  seen.unusable = await refusal(() => client.detect("bus.jpg", { model: "yolov5n" }));
  seen.pixels = await refusal(() => client.detect({ ...raw, height: 2 }, { model: "yolov5n" }));
  seen.task = await refusal(() => client.compare(image, { tasks: ["segmentation"] }));
  seen.explain = await refusal(() => classify({ explain: 3 }));
  const lasting = new AbortController().signal;
  for (let call = 0; call < 20; call++) await client.models({ signal: lasting });
  seen.listeners = getEventListeners(lasting, "abort").length;
  client.close();
  seen.closed = await refusal(() => client.models());

  const local = new VisavisClient({ address: `unix:${socket}` });
  seen.overSocket = (await local.models()).length;
  local.close();

  const mutual = { ca, certificate, privateKey };
  const known = new VisavisClient({ address: tls, tls: mutual, token });
  seen.overTls = (await known.models()).length;
  known.close();
  const stranger = new VisavisClient({ address: tls, tls: mutual });
  seen.withoutToken = await refusal(() => stranger.models());
  stranger.close();
  const unknown = new VisavisClient({ address: tls, tls: { ca }, token, timeoutMs: 2000 });
  seen.withoutCertificate = await refusal(() => unknown.models());
  unknown.close();
  const distrustful = new VisavisClient({ address: tls, tls: true, token, timeoutMs: 2000 });
  seen.untrusted = await refusal(() => distrustful.models());
  distrustful.close();

  const open = (options) => refusal(() => new VisavisClient(options));
  seen.inTheClear = await open({ address: "vision.example.org:8001", token });
  seen.address = await open({ address: "localhost" });
  seen.halfCertificate = await open({ address: tls, tls: { certificate: "pem" } });
  seen.header = await open({ headers: { authorization: "Bearer x" } });
  return seen;
};
