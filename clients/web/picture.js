// A picture from a file, wherever the file came from.

// What the server takes; anything else that the browser can show is sent as PNG.
const SENT_AS_THEY_ARE = ["image/jpeg", "image/png", "image/webp"];

/**
 * Return a file as a picture: `url` shows it, `encoded` is what is sent, in base64.
 *
 * width, height: upright, as the browser and the server turn it by its EXIF orientation.
 * Throws Error if the browser can't show it.
 */
export async function read(file) {
  const url = URL.createObjectURL(file);
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
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
    URL.revokeObjectURL(url);
    throw new Error(`${file.name} is no picture that this browser can show`, { cause: error });
  }
}

/** Return what an image or a video shows now, as an encoded file. Throws Error if it can't be. */
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
