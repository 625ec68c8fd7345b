"use strict";
// Draws an answer over its image. Lengths are in CSS pixels of a drawing `scale` times the original's size.

const css = ([red, green, blue], alpha = 1) => `rgb(${red} ${green} ${blue} / ${alpha})`;
const colorOf = (about, index) => about.colors[index % about.colors.length];

/** Black or white, whichever is easier to read on the colour (WCAG's relative luminance). */
function inkOn(color) {
  const [red, green, blue] = color.map((level) => (level / 255 <= 0.04045 ? level / 3294.6 : ((level / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
}

/** The class map as an image of its own, transparent where only one class is asked for and it is another. */
function paintMap(about, { height, width, map }, only) {
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
  const image = context.createImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  const table = new Uint32Array(65536);
  for (const index of new Set(map)) {
    const [red, green, blue] = colorOf(about, index);
    if (only === null || only === index) table[index] = (255 << 24) | (blue << 16) | (green << 8) | red;
  }
  for (let at = 0; at < map.length; at += 1) pixels[at] = table[map[at]];
  context.putImageData(image, 0, 0);
  return canvas;
}

function drawTag(context, text, color, left, top, limit) {
  const wide = context.measureText(text).width + 8;
  const x = Math.max(0, Math.min(left, limit - wide)), y = Math.max(0, top - 18);
  context.fillStyle = css(color);
  context.fillRect(x, y, wide, 18);
  context.fillStyle = inkOn(color);
  context.fillText(text, x + 4, y + 13);
}

/** Colour the pixels of an object's mask. */
function drawMask(context, { left, top, width, height, bits }, [red, green, blue], scale) {
  if (!bits.length) return;
  const canvas = new OffscreenCanvas(width, height), inner = canvas.getContext("2d");
  const image = inner.createImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  const color = (255 << 24) | (blue << 16) | (green << 8) | red;
  for (let at = 0; at < bits.length; at += 1) pixels[at] = bits[at] * color;
  inner.putImageData(image, 0, 0);
  context.drawImage(canvas, left * scale, top * scale, width * scale, height * scale);
}

/** Lay a word's attention over the part of the image that the network saw: dark where it did not look. */
function drawAttention(context, { height, width, maps }, index, [top, left, high, wide], scale) {
  const canvas = new OffscreenCanvas(width, height), inner = canvas.getContext("2d");
  const image = inner.createImageData(width, height), largest = Math.max(...maps[index]);
  for (let at = 0; at < maps[index].length; at += 1) image.data[4 * at + 3] = 190 * (1 - maps[index][at] / largest);
  inner.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(canvas, left * scale, top * scale, wide * scale, high * scale);
}

function drawBoxes(context, about, answer, scale, width, { minScore, opacity, only }) {
  const shown = [...answer.boxes.keys()].filter((i) => answer.scores[i] >= minScore);
  const solid = (i) => only === null || only === i;
  context.font = "600 12px system-ui, sans-serif";
  for (const i of shown.reverse()) { // the best ones on top
    if (answer.masks) {
      context.globalAlpha = solid(i) ? opacity : 0;
      drawMask(context, answer.masks[i], colorOf(about, answer.labels[i]), scale);
    }
    const [x1, y1, x2, y2] = answer.boxes[i].map((value) => value * scale);
    context.globalAlpha = solid(i) ? 1 : 0.25;
    context.lineWidth = 4;
    context.strokeStyle = "rgb(0 0 0 / 0.55)";
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    context.lineWidth = 2;
    context.strokeStyle = css(colorOf(about, answer.labels[i]));
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  for (const i of shown.filter(solid)) {
    const [x1, y1] = answer.boxes[i].map((value) => value * scale);
    context.globalAlpha = 1;
    drawTag(context, `${answer.names[i]} ${answer.scores[i].toFixed(2)}`, colorOf(about, answer.labels[i]), x1 - 1, y1, width);
  }
  context.globalAlpha = 1;
}

/** Shade what the network does not see. */
function shadeOutside(context, [top, left, height, width], scale, canvasWidth, canvasHeight) {
  const [x, y, wide, high] = [left, top, width, height].map((value) => value * scale);
  if (wide > canvasWidth - 1 && high > canvasHeight - 1) return;
  context.fillStyle = "rgb(0 0 0 / 0.5)";
  context.beginPath();
  context.rect(0, 0, canvasWidth, canvasHeight);
  context.rect(x, y, wide, high);
  context.fill("evenodd");
  context.lineWidth = 1;
  context.strokeStyle = "#ffffff";
  context.strokeRect(x + 0.5, y + 0.5, wide - 1, high - 1);
}

/**
 * Draw the image and its answer.
 * options: minScore (boxes below are left out), opacity (of masks), only (a box or a class, or null for all).
 */
function drawAnswer(canvas, bitmap, about, answer, width, ratio, options) {
  const scale = width / bitmap.width, height = bitmap.height * scale;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.imageSmoothingEnabled = scale < 2; // small images show their pixels
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  if (answer === null) return;
  if (answer.map) {
    context.globalAlpha = options.opacity;
    context.imageSmoothingEnabled = false;
    context.drawImage(paintMap(about, answer.map, options.only), 0, 0, width, height);
    context.globalAlpha = 1;
  }
  if (answer.boxes) drawBoxes(context, about, answer, scale, width, options);
  if (answer.attention && options.only !== null) drawAttention(context, answer.attention, options.only, answer.box, scale);
  if (!answer.map && !answer.boxes) shadeOutside(context, answer.box, scale, width, height);
}
