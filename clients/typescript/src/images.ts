// The pictures that a client accepts.
import type { MessageInitShape } from "@bufbuild/protobuf";

import { invalid } from "./errors.js";
import { type ImageSchema, PixelFormat } from "./gen/visavis/v1/vision_pb.js";

/** Decoded pixels in upright orientation, top row first, without padding. */
export interface RawPixels {
  /**
   * Layout of `data`; a wrong one gives wrong scores. OpenCV's pixels are BGR. NV12 is a Y plane,
   * then interleaved U and V at half resolution.
   */
  format: "RGB" | "BGR" | "GRAY" | "NV12";
  width: number;
  height: number;
  data: Uint8Array;
}

/** What a canvas gives: RGBA pixels. Their alpha is dropped. */
export interface CanvasPixels {
  width: number;
  height: number;
  data: Uint8ClampedArray;
}

/**
 * A picture: the bytes of a JPEG, PNG or WebP file (a `Buffer`, a `File`, …), a canvas's
 * `ImageData`, or decoded pixels.
 */
export type ImageSource = Uint8Array | ArrayBuffer | Blob | RawPixels | CanvasPixels;

const FORMATS = {
  RGB: { value: PixelFormat.RGB, bytesPerPixel: 3 },
  BGR: { value: PixelFormat.BGR, bytesPerPixel: 3 },
  GRAY: { value: PixelFormat.GRAY, bytesPerPixel: 1 },
  NV12: { value: PixelFormat.NV12, bytesPerPixel: 1.5 },
} as const;

/** Return the image of a request. Throws a VisavisError that names the field `image`. */
export async function toImage(source: ImageSource): Promise<MessageInitShape<typeof ImageSchema>> {
  if (source instanceof Uint8Array) return encoded(source);
  if (source instanceof ArrayBuffer) return encoded(new Uint8Array(source));
  if (source instanceof Blob) return encoded(new Uint8Array(await source.arrayBuffer()));
  if (typeof source !== "object" || source === null || !("data" in source)) {
    const hint = typeof source === "string" ? "; read the file, and pass its bytes" : "";
    throw invalid("image", `image is a ${typeof source}; use bytes, a Blob or pixels${hint}`);
  }
  return raw("format" in source ? source : withoutAlpha(source));
}

function encoded(file: Uint8Array): MessageInitShape<typeof ImageSchema> {
  if (!file.length) throw invalid("image", "image is empty");
  return { source: { case: "encoded", value: file } };
}

function raw(pixels: RawPixels): MessageInitShape<typeof ImageSchema> {
  const { width, height, data } = pixels;
  const format = FORMATS[pixels.format];
  if (!format) {
    const known = Object.keys(FORMATS).join(", ");
    throw invalid("image", `image has the format ${pixels.format}; use one of ${known}`);
  }
  const size = width * height * format.bytesPerPixel;
  if (data.length !== size) {
    throw invalid(
      "image",
      `image has ${data.length} bytes; ${width}×${height} pixels in ${pixels.format} have ${size}`,
    );
  }
  return { source: { case: "raw", value: { format: format.value, width, height, data } } };
}

function withoutAlpha({ width, height, data }: CanvasPixels): RawPixels {
  const rgb = new Uint8Array((data.length / 4) * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    rgb[to++] = data[from]!;
    rgb[to++] = data[from + 1]!;
    rgb[to++] = data[from + 2]!;
  }
  return { format: "RGB", width, height, data: rgb };
}
