// Compiled, never run: the types of the package.
import {
  type ClientOptions,
  type CompareEvent,
  type ImageSource,
  type StatusCode,
  VisavisClient,
  VisavisError,
} from "@visavis/client";
import { VisavisClient as WebClient } from "@visavis/client/web";

export async function use(options: ClientOptions, image: ImageSource): Promise<number> {
  const client = new VisavisClient(options);
  const { detections, servedBy } = await client.detect(image, { model: "yolov5n" });
  const score: number = detections[0]?.score ?? 0;
  const name: string = servedBy.model;
  // @ts-expect-error: a model is required.
  await client.classify(image, { topK: 3 });
  // @ts-expect-error: a misspelt option.
  await client.detect(image, { model: "yolov5n", scoreTreshold: 0.5 });
  const { heatMap } = await client.classify(image, { model: "resnet50", explain: true });
  if (heatMap) return heatMap.values.length / heatMap.width + heatMap.area.xMin;
  // @ts-expect-error: neither true nor a label.
  await client.compare(image, { explain: 3 });
  // @ts-expect-error: only comparisons have differences.
  await client.detect(image, { model: "yolov5n", annotateDifference: true });
  // @ts-expect-error: no such task.
  await client.compare(image, { tasks: ["segmentation"] });
  // @ts-expect-error: a path is not a picture.
  await client.classify("bus.jpg", { model: "resnet50" });
  const events: AsyncIterable<CompareEvent> = client.compareStream(image, { timeoutMs: 100 });
  for await (const event of events) {
    if (event.type === "answer") continue;
    for (const { agreement } of event.comparison.comparisons.flatMap(({ answers }) => answers)) {
      // @ts-expect-error: only of detectors.
      agreement?.f1;
      if (agreement?.kind === "detection") return agreement.f1;
      if (agreement) return agreement.unknownHere + agreement.unknownInBaseline;
    }
  }
  try {
    const cards = await client.models({ signal: AbortSignal.timeout(100) });
    return cards.length + score + name.length;
  } catch (error) {
    if (error instanceof VisavisError) {
      const code: StatusCode = error.code;
      return error.retryAfterMs ?? code.length;
    }
    throw error;
  } finally {
    client.close();
    new WebClient({ protocol: "grpc-web" }).close();
  }
}
