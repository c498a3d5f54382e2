"use strict";
// The hook `prepare` of ask.py once more, for a page that asks a model without a server: a picture as the model's input.

const ACROSS = 28, INK = 20, LARGEST = 1000;

function median(values) {
  const sorted = Float64Array.from(values).sort(), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

async function greyOf(blob) {   // from 0 to 1; what is transparent is white
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale)), height = Math.max(1, Math.round(bitmap.height * scale));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height), values = new Float64Array(width * height);
  for (let n = 0; n < values.length; n++) {
    values[n] = ((data[4 * n] * 19595 + data[4 * n + 1] * 38470 + data[4 * n + 2] * 7471 + 0x8000) >> 16) / 255;
  }
  return { width, height, values };
}

function lanczos(from, width, height, to) {   // columns from `width` to `to`, as Pillow does it, in whole numbers to 255
  const scale = width / to, wide = Math.max(1, scale), support = 3 * wide, result = new Float64Array(to * height);
  const sinc = (x) => x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
  for (let column = 0; column < to; column++) {
    const centre = (column + .5) * scale;
    const first = Math.max(0, Math.floor(centre - support + .5)), last = Math.min(width, Math.floor(centre + support + .5));
    const weights = Array.from({ length: last - first }, (_, n) => {
      const x = (first + n - centre + .5) / wide;
      return Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
    });
    const all = weights.reduce((sum, weight) => sum + weight, 0);
    for (let row = 0; row < height; row++) {
      let sum = 0;
      weights.forEach((weight, n) => { sum += weight / all * from[row * width + first + n]; });
      result[row * to + column] = Math.min(255, Math.max(0, Math.round(sum)));
    }
  }
  return result;
}

function turned(values, width, height) {
  return Float64Array.from(values, (_, n) => values[(n % height) * width + Math.floor(n / height)]);
}

function begins(mass) {
  const all = mass.reduce((sum, value) => sum + value, 0);
  const centre = mass.reduce((sum, value, n) => sum + n * value, 0) / all;
  return Math.min(Math.max(0, Math.round((ACROSS - 1) / 2 - centre)), ACROSS - mass.length);
}

function centred({ width, height, values }, longer) {
  const paper = median(values), most = values.reduce((high, value) => Math.max(high, value), -1);
  const ink = values.map((value) => Math.min(1, Math.max(0, (value - paper) / (most - paper || 1))));
  let [top, bottom, left, right] = [height, -1, width, -1];
  ink.forEach((value, n) => {
    if (value <= .2) return;
    const row = Math.floor(n / width), column = n % width;
    [top, bottom, left, right] = [Math.min(top, row), Math.max(bottom, row), Math.min(left, column), Math.max(right, column)];
  });
  const wide = right - left + 1, high = bottom - top + 1, page = new Float64Array(ACROSS * ACROSS);
  const cut = Float64Array.from({ length: wide * high },
                                (_, n) => Math.floor(255 * ink[(top + Math.floor(n / wide)) * width + left + n % wide]));
  const [across, down] = [wide, high].map((length) => Math.max(1, Math.round(length * longer / Math.max(wide, high))));
  const small = turned(lanczos(turned(lanczos(cut, wide, high, across), across, high), high, across, down), down, across);
  const rows = Array.from({ length: down }, (_, row) => small.slice(row * across, (row + 1) * across).reduce((a, b) => a + b, 0));
  const columns = Array.from({ length: across }, (_, column) => rows.reduce((sum, _, row) => sum + small[row * across + column], 0));
  const [y, x] = [begins(rows), begins(columns)];
  small.forEach((value, n) => { page[(y + Math.floor(n / across)) * ACROSS + x + n % across] = value / 255; });
  return page;
}

globalThis.prepare = async (blob, { ink, ink_side: longer = INK, mean, deviation }) => {
  const grey = await greyOf(blob), { width, height, values } = grey;
  const rim = values.filter((_, n) => n < width || n >= width * (height - 1) || n % width === 0 || n % width === width - 1);
  if (median(rim) > .5) grey.values = values.map((value) => 1 - value);
  const [low, high] = grey.values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [2, -1]);
  if (high - low < .1) throw Object.assign(new Error("This has one colour only: draw a digit on it first."), { status: 422 });
  const page = width === ACROSS && height === ACROSS ? grey.values : centred(grey, longer);
  return Float32Array.from(page, (value) => ((ink === "bright" ? value : 1 - value) - mean) / deviation);
};
