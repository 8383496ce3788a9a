// Heat maps: a colour map over the picture, blended, and a legend with the scale.

import { element, setStyle } from "./elements.js";

// OpenCV's COLORMAP_INFERNO at equal distances, with which the server draws: perceptually uniform.
const COLORS = [
  [0, 0, 4],
  [11, 7, 36],
  [33, 12, 74],
  [61, 9, 101],
  [87, 16, 110],
  [113, 25, 110],
  [138, 34, 106],
  [163, 44, 97],
  [188, 55, 84],
  [208, 69, 69],
  [227, 89, 51],
  [241, 113, 31],
  [249, 140, 10],
  [252, 170, 15],
  [249, 201, 50],
  [242, 232, 101],
  [252, 255, 164],
];

/** A heat map: `canvas` lies on the picture, `legend` below it. Both are hidden without a map. */
export class Heat {
  canvas = element("canvas", { className: "heat", ariaHidden: "true", hidden: true });
  legend = element("p", { className: "quiet scale", hidden: true });

  /** Show a map, as in JSON, on a picture; undefined hides it. */
  draw(map, picture) {
    this.canvas.hidden = this.legend.hidden = !map;
    if (!map) return;
    const { width, height, area, min, max, label } = map;
    Object.assign(this.canvas, { width, height });
    const pixels = new ImageData(width, height);
    const scale = max > min ? 1 / (max - min) : 0;
    map.values.forEach((value, index) => {
      pixels.data.set([...color((value - min) * scale), 255], 4 * index);
    });
    this.canvas.getContext("2d").putImageData(pixels, 0, 0);
    setStyle(this.canvas, {
      left: `${(100 * area.xMin) / picture.width}%`,
      top: `${(100 * area.yMin) / picture.height}%`,
      width: `${(100 * (area.xMax - area.xMin)) / picture.width}%`,
      height: `${(100 * (area.yMax - area.yMin)) / picture.height}%`,
    });
    const ramp = element("span", { className: "ramp", ariaHidden: "true" });
    setStyle(ramp, {
      background: `linear-gradient(to right, ${COLORS.map((rgb) => `rgb(${rgb})`).join(", ")})`,
    });
    this.legend.replaceChildren(
      "Heat map of ",
      element("strong", {}, label),
      ": ",
      element("span", { className: "range" }, short(min, map), ramp, short(max, map)),
    );
  }
}

/** Return the colour of a share in [0, 1] as red, green and blue. */
function color(share) {
  const place = share * (COLORS.length - 1);
  const index = Math.min(Math.floor(place), COLORS.length - 2);
  return COLORS[index].map(
    (low, part) => low + (COLORS[index + 1][part] - low) * (place - index),
  );
}

/** Return a value with as many decimals as the largest magnitude needs for three digits. */
function short(value, { min, max }) {
  const largest = Math.max(Math.abs(min), Math.abs(max), 1e-9);
  const decimals = 2 - Math.floor(Math.log10(largest));
  return String(Math.round(value * 10 ** decimals) / 10 ** decimals + 0);
}
