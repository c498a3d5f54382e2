"use strict";
// The hook `prepare` of preprocessing.py in JavaScript, for a page that contains its model.

const ACROSS = 28, DIGIT = 20;   // pixels: the model's input, and the longer side of the digit

function median(values) {
  const sorted = Float64Array.from(values).sort(), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

async function grey(blob) {   // from 0 to 1, with Pillow's weights
  const bitmap = await createImageBitmap(blob), { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const weights = [19595, 38470, 7471];
  const values = Float64Array.from({ length: width * height }, (_, n) =>
    (weights.reduce((sum, weight, c) => sum + weight * data[4 * n + c], 0x8000) >> 16) / 255);
  return { width, height, values };
}

function lanczos(from, width, height, to) {   // resizes rows as Pillow does, in bytes
  const scale = width / to, stretch = Math.max(1, scale), result = new Float64Array(to * height);
  const sinc = (x) => x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
  for (let column = 0; column < to; column++) {
    const centre = (column + .5) * scale;
    const first = Math.max(0, Math.floor(centre - 3 * stretch + .5));
    const last = Math.min(width, Math.floor(centre + 3 * stretch + .5));
    const weights = Array.from({ length: last - first }, (_, n) => {
      const x = (first + n - centre + .5) / stretch;
      return Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
    });
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    for (let row = 0; row < height; row++) {
      const value = weights.reduce(
        (sum, weight, n) => sum + weight / total * from[row * width + first + n], 0);
      result[row * to + column] = Math.min(255, Math.max(0, Math.round(value)));
    }
  }
  return result;
}

function transposed(values, width, height) {
  return values.map((_, n) => values[(n % height) * width + Math.floor(n / height)]);
}

function start(mass) {   // of a digit whose centre of mass is in the middle
  const total = mass.reduce((sum, value) => sum + value, 0);
  const centre = mass.reduce((sum, value, n) => sum + n * value, 0) / total;
  return Math.min(Math.max(0, Math.round((ACROSS - 1) / 2 - centre)), ACROSS - mass.length);
}

function sums(values, width) {   // of each row
  return Array.from({ length: values.length / width }, (_, row) =>
    values.slice(row * width, (row + 1) * width).reduce((sum, value) => sum + value, 0));
}

function centred({ width, height, values }, longer) {
  const paper = median(values), darkest = values.reduce((a, b) => Math.max(a, b));
  const ink = values.map((value) => Math.max(0, (value - paper) / (darkest - paper || 1)));
  const inked = [...ink.keys()].filter((n) => ink[n] > .2);
  const rows = inked.map((n) => Math.floor(n / width)), columns = inked.map((n) => n % width);
  const range = (all) => all.reduce(([a, b], n) => [Math.min(a, n), Math.max(b, n)], [Infinity, 0]);
  const [[top, bottom], [left, right]] = [range(rows), range(columns)];
  const wide = right - left + 1, high = bottom - top + 1;
  const cropped = Float64Array.from({ length: wide * high }, (_, n) =>
    Math.floor(255 * ink[(top + Math.floor(n / wide)) * width + left + n % wide]));
  const [across, down] = [wide, high].map(
    (length) => Math.max(1, Math.round(length * longer / Math.max(wide, high))));
  const narrow = transposed(lanczos(cropped, wide, high, across), across, high);
  const upright = lanczos(narrow, high, across, down), small = transposed(upright, down, across);
  const [x, y] = [start(sums(upright, down)), start(sums(small, across))];
  const page = new Float64Array(ACROSS * ACROSS);
  small.forEach((value, n) => {
    page[(y + Math.floor(n / across)) * ACROSS + x + n % across] = value / 255;
  });
  return page;
}

globalThis.prepare = async (blob, { ink, ink_side: longer = DIGIT, mean, deviation }) => {
  const picture = await grey(blob);   // of the page's board: dark ink on white
  picture.values = picture.values.map((value) => 1 - value);
  if (picture.values.every((value) => value < .1)) {
    throw Object.assign(new Error("The board is empty: draw a digit first."), { status: 422 });
  }
  return Float32Array.from(centred(picture, longer),
    (value) => ((ink === "bright" ? value : 1 - value) - mean) / deviation);
};
