// A picture from a file.

import { orientation, withoutExif } from "./orientation.js";

// The formats that the server accepts; others that the browser can show are converted to PNG.
const SENT_AS_THEY_ARE = ["image/jpeg", "image/png", "image/webp"];
// By EXIF orientation: the transform that turns a canvas of this width and height upright.
const TURNS = {
  2: (w) => [-1, 0, 0, 1, w, 0],
  3: (w, h) => [-1, 0, 0, -1, w, h],
  4: (w, h) => [1, 0, 0, -1, 0, h],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (w, h) => [0, 1, -1, 0, h, 0],
  7: (w, h) => [0, -1, -1, 0, h, w],
  8: (w) => [0, -1, 1, 0, 0, w],
};

/**
 * Return a file as a picture: `url` to show it, and `encoded` to send it, in base64.
 *
 * width, height: of the upright picture, with its EXIF orientation applied.
 * Throws Error if the browser can't show it.
 */
export async function read(file) {
  let url;
  try {
    url = URL.createObjectURL(await upright(file));
    const image = await shown(url);
    if (!SENT_AS_THEY_ARE.includes(file.type)) {
      const png = await still(image, image.naturalWidth, image.naturalHeight, "image/png");
      URL.revokeObjectURL(url);
      return read(new File([png], `${file.name}.png`, { type: png.type }));
    }
    return {
      name: file.name,
      bytes: file.size,
      url,
      width: image.naturalWidth,
      height: image.naturalHeight,
      encoded: await base64(file),
    };
  } catch (error) {
    if (url) URL.revokeObjectURL(url);
    throw new Error(`This browser can’t show ${file.name} as a picture`, { cause: error });
  }
}

/** Return what the browser shows upright, as the server does: the file or a rotated copy. */
async function upright(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const { turn, isUsual } = SENT_AS_THEY_ARE.includes(file.type)
    ? orientation(bytes)
    : { isUsual: true };
  if (isUsual) return file;
  const bare = withoutExif(bytes);
  if (turn === 1) return bare;
  const url = URL.createObjectURL(bare);
  try {
    const image = await shown(url);
    const { naturalWidth: width, naturalHeight: height } = image;
    const canvas = new OffscreenCanvas(...(turn < 5 ? [width, height] : [height, width]));
    const context = canvas.getContext("2d");
    context.setTransform(...TURNS[turn](width, height));
    context.drawImage(image, 0, 0);
    return await canvas.convertToBlob({ type: "image/png" });
  } finally {
    URL.revokeObjectURL(url);
  }
}

async function shown(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** Return the current frame of an image or video as an encoded file. Throws Error on failure. */
export function still(source, width, height, type) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").drawImage(source, 0, 0);
  return canvas.convertToBlob({ type, quality: 0.95 });
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
