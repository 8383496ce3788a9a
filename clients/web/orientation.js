// The EXIF orientation, read as the server does; browsers differ on odd blocks.

const ORIENTATION = 0x0112;
// By TIFF's number of the type: BYTE, SHORT, LONG.
const INTEGER_BYTES = { 1: 1, 3: 2, 4: 4 };
const SHORT = 3;

/**
 * Return a file's EXIF orientation, 1 to 8, and if every browser reads it the same way.
 *
 * bytes: a Uint8Array of a JPEG, PNG or WebP.
 */
export function orientation(bytes) {
  const blocks = [...blocksOf(bytes)];
  if (!blocks.length) return { turn: 1, isUsual: true };
  const { turn, isUsual } = read(blocks[0].content);
  return { turn, isUsual: isUsual && blocks.length === 1 && bytes[0] === 0xff };
}

/** Return a copy of a file with its EXIF blocks disabled. */
export function withoutExif(bytes) {
  const parts = [];
  let kept = 0;
  for (const { start, end } of blocksOf(bytes)) {
    parts.push(bytes.subarray(kept, start));
    if (bytes[0] === 0x52) {
      // WebP stores its total size, so the chunk stays, with an unknown type.
      parts.push(new TextEncoder().encode("none"), bytes.subarray(start + 4, end));
    }
    kept = end;
  }
  return new Blob([...parts, bytes.subarray(kept)]);
}

function* blocksOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = (at, length) => String.fromCharCode(...bytes.subarray(at, at + length));
  if (bytes[0] === 0xff) {
    for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff; ) {
      const kind = bytes[at + 1];
      if (kind === 0xff) {
        at += 1;
        continue;
      }
      if (kind === 0xda || kind === 0xd9) return;
      const end = at + 2 + view.getUint16(at + 2);
      if (kind === 0xe1 && text(at + 4, 6) === "Exif\0\0") {
        yield { start: at, end, content: bytes.subarray(at + 10, end) };
      }
      at = end;
    }
  } else if (text(0, 4) === "RIFF") {
    for (let at = 12; at + 8 <= bytes.length; ) {
      const length = view.getUint32(at + 4, true);
      const end = at + 8 + length + (length % 2);
      if (text(at, 4) === "ANMF") return;
      if (text(at, 4) === "EXIF") {
        yield { start: at, end, content: bytes.subarray(at + 8, at + 8 + length) };
      }
      at = end;
    }
  } else {
    for (let at = 8; at + 12 <= bytes.length; ) {
      const end = at + 12 + view.getUint32(at);
      if (text(at + 4, 4) === "acTL") return;
      if (text(at + 4, 4) === "eXIf") {
        yield { start: at, end, content: bytes.subarray(at + 8, end - 4) };
      }
      at = end;
    }
  }
}

function read(content) {
  const none = { turn: 1, isUsual: false };
  let block = content.subarray(0, 0xffff);
  const text = (length) => String.fromCharCode(...block.subarray(0, length));
  const hasHeader = text(6) === "Exif\0\0";
  if (hasHeader) block = block.subarray(6);
  const isLittle = text(4) === "II*\0";
  if (!isLittle && text(4) !== "MM\0*") return none;
  const number = (at, size) => {
    const digits = [...block.subarray(at, at + size)];
    return (isLittle ? digits.reverse() : digits).reduce((sum, digit) => sum * 256 + digit, 0);
  };
  const start = number(4, 4);
  const end = Math.min(start + 2 + 12 * number(start, 2), block.length - 11);
  const found = [];
  for (let at = start + 2; at < end; at += 12) {
    if (number(at, 2) !== ORIENTATION) continue;
    const kind = number(at + 2, 2);
    const value = number(at + 8, INTEGER_BYTES[kind] ?? 0);
    const isUsual = kind === SHORT && number(at + 4, 4) === 1;
    found.push({ turn: value >= 1 && value <= 8 ? value : 1, isUsual });
  }
  if (!found.length) return { turn: 1, isUsual: true };
  const [{ turn, isUsual }] = found;
  return { turn, isUsual: isUsual && found.length === 1 && !hasHeader };
}
