// What both entry points export.
export type * from "./cards.js";
export { type FieldViolation, type StatusCode, VisavisError } from "./errors.js";
export type { CanvasPixels, ImageSource, RawPixels } from "./images.js";
export type * from "./options.js";
export type * from "./results.js";
