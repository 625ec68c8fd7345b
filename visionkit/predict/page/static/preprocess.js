"use strict";
// An image's pixels as the Python library gives them to the network, to the last bit: the geometry of
// visionkit.data.transforms, and torch's antialiased resize of uint8 (after Pillow's: a triangle filter with
// integer weights, first along the rows, then along the columns, rounded to uint8 between the two).

/** Round as Python does: halves go to the even neighbour. */
function roundEven(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

/**
 * What of an image of this size the network receives, and at which size.
 * Returns {box: [top, left, height, width], size: [height, width]}, in pixels.
 */
function geometry(preprocess, height, width) {
  const { name, size } = preprocess;
  if (name === "DetectionEval") return geometry(preprocess.resize, height, width);
  const whole = [0, 0, height, width];
  if (name === "Native") return { box: whole, size: [height, width] };
  if (name === "CenterCrop") {
    const side = Math.max(1, roundEven(Math.min(height, width) * preprocess.fraction));
    return { box: [Math.floor((height - side) / 2), Math.floor((width - side) / 2), side, side], size: [size, size] };
  }
  if (name === "Resize" && Array.isArray(size)) return { box: whole, size };
  if (name === "Resize") {
    let scale = size / Math.min(height, width);
    if (preprocess.max_size) scale = Math.min(scale, preprocess.max_size / Math.max(height, width));
    return { box: whole, size: [height, width].map((side) => Math.max(1, roundEven(side * scale))) };
  }
  throw new Error(`This page does not know the resize rule ${name}.`);
}

/** The taps of each output pixel along one side: first input pixel, and integer weights (times 2^shift). */
function filterTaps(from, to) {
  const scale = from / to;
  const support = Math.max(scale, 1);
  const starts = new Int32Array(to), rows = [];
  let largest = 0;
  for (let i = 0; i < to; i += 1) {
    const center = scale * (i + 0.5);
    const start = Math.max(Math.trunc(center - support + 0.5), 0);
    const count = Math.min(Math.trunc(center + support + 0.5), from) - start;
    const row = new Float64Array(count);
    let total = 0;
    for (let j = 0; j < count; j += 1) total += row[j] = Math.max(0, 1 - Math.abs((j + start - center + 0.5) / support));
    for (let j = 0; j < count; j += 1) largest = Math.max(largest, row[j] /= total);
    starts[i] = start;
    rows.push(row);
  }
  let shift = 0;
  while (shift < 22 && Math.trunc(0.5 + largest * 2 ** (shift + 1)) < 2 ** 15) shift += 1;
  return { starts, shift, rows: rows.map((row) => Int32Array.from(row, (weight) => Math.trunc(0.5 + weight * 2 ** shift))) };
}

/**
 * Crop and resize.
 * pixels: RGBA of the whole image (Uint8ClampedArray), its rows `stride` pixels long.
 * Returns planes (3, height, width) as a Uint8Array.
 */
function cropResize(pixels, stride, [top, left, height, width], [outHeight, outWidth]) {
  const rows = new Uint8Array(3 * height * outWidth); // planes (3, height, outWidth)
  const across = filterTaps(width, outWidth);
  const half = 1 << (across.shift - 1), plane = height * outWidth;
  for (let y = 0; y < height; y += 1) {
    const line = ((top + y) * stride + left) * 4;
    for (let x = 0; x < outWidth; x += 1) {
      const weights = across.rows[x];
      let at = line + across.starts[x] * 4, red = half, green = half, blue = half;
      for (let j = 0; j < weights.length; j += 1, at += 4) {
        const weight = weights[j];
        red += weight * pixels[at];
        green += weight * pixels[at + 1];
        blue += weight * pixels[at + 2];
      }
      const to = y * outWidth + x;
      rows[to] = Math.min(red >> across.shift, 255);
      rows[to + plane] = Math.min(green >> across.shift, 255);
      rows[to + 2 * plane] = Math.min(blue >> across.shift, 255);
    }
  }
  if (outHeight === height) return rows;
  const down = filterTaps(height, outHeight);
  const out = new Uint8Array(3 * outHeight * outWidth), sums = new Int32Array(outWidth);
  for (let channel = 0; channel < 3; channel += 1) {
    for (let y = 0; y < outHeight; y += 1) {
      const weights = down.rows[y];
      sums.fill(1 << (down.shift - 1));
      for (let j = 0; j < weights.length; j += 1) {
        const weight = weights[j], line = channel * plane + (down.starts[y] + j) * outWidth;
        for (let x = 0; x < outWidth; x += 1) sums[x] += weight * rows[line + x];
      }
      const to = (channel * outHeight + y) * outWidth;
      for (let x = 0; x < outWidth; x += 1) out[to + x] = Math.min(sums[x] >> down.shift, 255);
    }
  }
  return out;
}
