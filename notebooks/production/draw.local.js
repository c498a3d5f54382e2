"use strict";
// The hook `prepare` of preprocessing.py in JavaScript, for a page that contains its model. It gets
// a picture of the page's board, black on white. A matrix is a list of rows.

const ACROSS = 28, LONGER = 20;   // pixels: the model's input, and the longer side of the digit

const sum = (values) => values.reduce((total, value) => total + value, 0);
const transposed = (matrix) => matrix[0].map((_, column) => matrix.map((row) => row[column]));
const product = (left, right) => {
  const columns = transposed(right);
  return left.map((row) => columns.map((column) => sum(row.map((value, n) => value * column[n]))));
};

async function inkOf(blob) {   // from 0 to 1
  const bitmap = await createImageBitmap(blob), { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);   // red, green, blue, opacity
  return Array.from({ length: height }, (_, row) =>
    Array.from({ length: width }, (_, column) => 1 - data[4 * (row * width + column)] / 255));
}

function range(rows) {   // of the rows with ink: the first, and the one after the last
  const inked = rows.map((row) => row.some((value) => value > .2));
  return [inked.indexOf(true), inked.lastIndexOf(true) + 1];
}

function resizing(from, to) {   // a matrix [to, from] that resizes as Pillow's BILINEAR does
  const scale = from / to;
  return Array.from({ length: to }, (_, row) => {
    const weights = Array.from({ length: from }, (_, n) =>
      Math.max(0, 1 - Math.abs(n + .5 - (row + .5) * scale) / Math.max(1, scale)));
    return weights.map((weight) => weight / sum(weights));
  });
}

function start(rows) {   // of rows whose centre of mass is in the middle
  const mass = rows.map(sum), centre = sum(mass.map((value, n) => n * value)) / sum(mass);
  return Math.min(Math.max(0, Math.round((ACROSS - 1) / 2 - centre)), ACROSS - mass.length);
}

globalThis.prepare = async (blob, { ink, ink_side: longer = LONGER, mean, deviation }) => {
  const rows = await inkOf(blob), [top, bottom] = range(rows);
  if (bottom === 0) throw Object.assign(new Error("Draw a digit first."), { status: 422 });
  const [left, right] = range(transposed(rows));
  const cropped = rows.slice(top, bottom).map((row) => row.slice(left, right));
  const sides = [bottom - top, right - left], scale = longer / Math.max(...sides);
  const [down, across] = sides.map((side) => resizing(side, Math.max(1, Math.round(side * scale))));
  const small = product(product(down, cropped), transposed(across));
  const [y, x] = [start(small), start(transposed(small))];
  return Float32Array.from({ length: ACROSS * ACROSS }, (_, n) => {
    const value = small[Math.floor(n / ACROSS) - y]?.[n % ACROSS - x] ?? 0;
    return ((ink === "bright" ? value : 1 - value) - mean) / deviation;
  });
};
