"use strict";
// What the network gave, as the values that Result.to_dict() of the Python library has.

const className = (about, index) => about.class_names[index] ?? `class ${index}`;

/** Class names with their values, the largest first; equal ones in the order of the classes. */
function ranked(about, values) {
  return Array.from(values, (value, index) => ({ name: className(about, index), index, probability: value }))
    .sort((one, other) => other.probability - one.probability || one.index - other.index);
}

function classification(about, outputs) {
  if (about.target === "regression") return { values: Array.from(outputs.values.data) };
  const probabilities = Array.from(outputs.probabilities.data);
  const order = ranked(about, probabilities);
  if (about.target === "multi") {
    const indices = [...probabilities.keys()].filter((index) => probabilities[index] > 0.5);
    return { labels: indices.map((index) => className(about, index)), indices, probabilities };
  }
  return { label: order[0].name, index: order[0].index, confidence: order[0].probability, top: order.slice(0, 5), probabilities };
}

/**
 * The pixels of a mask that is given as probabilities within its box, in the frame of the original: the steps of
 * torchvision's paste_masks_in_image. Returns {left, top, width, height, bits}, bits one a pixel.
 */
function pasteMask(values, side, [x1, y1, x2, y2], [imageHeight, imageWidth]) {
  const grown = side + 2, scale = grown / side; // a border of zeros on each side
  const padded = new Float32Array(grown * grown);
  for (let y = 0; y < side; y += 1) padded.set(values.subarray(y * side, (y + 1) * side), (y + 1) * grown + 1);
  const halfWidth = ((x2 - x1) / 2) * scale, halfHeight = ((y2 - y1) / 2) * scale;
  const left = Math.trunc((x1 + x2) / 2 - halfWidth), right = Math.trunc((x1 + x2) / 2 + halfWidth);
  const top = Math.trunc((y1 + y2) / 2 - halfHeight), bottom = Math.trunc((y1 + y2) / 2 + halfHeight);
  const wide = Math.max(right - left + 1, 1), high = Math.max(bottom - top + 1, 1);
  const from = (at, size) => {
    const position = Math.max(((at + 0.5) * grown) / size - 0.5, 0), low = Math.floor(position);
    return [low, Math.min(low + 1, grown - 1), position - low];
  };
  const x0 = Math.max(left, 0), y0 = Math.max(top, 0);
  const width = Math.min(left + wide, imageWidth) - x0, height = Math.min(top + high, imageHeight) - y0;
  const bits = new Uint8Array(Math.max(width, 0) * Math.max(height, 0));
  for (let y = 0; y < height; y += 1) {
    const [above, below, down] = from(y + y0 - top, high);
    for (let x = 0; x < width; x += 1) {
      const [before, after, across] = from(x + x0 - left, wide);
      const upper = padded[above * grown + before] * (1 - across) + padded[above * grown + after] * across;
      const lower = padded[below * grown + before] * (1 - across) + padded[below * grown + after] * across;
      bits[y * width + x] = upper * (1 - down) + lower * down >= 0.5 ? 1 : 0;
    }
  }
  return { left: x0, top: y0, width, height, bits };
}

/** Boxes go from the frame of the network's input to that of the original. */
function detection(about, outputs, size, [inputHeight, inputWidth]) {
  const [height, width] = size;
  const across = width / inputWidth, down = height / inputHeight;
  const boxes = [], scores = [], labels = [];
  const count = Number(outputs.count.data[0]);
  for (let i = 0; i < count; i += 1) {
    const [x1, y1, x2, y2] = outputs.boxes.data.subarray(4 * i, 4 * i + 4);
    boxes.push([x1 * across, y1 * down, x2 * across, y2 * down]);
    scores.push(outputs.scores.data[i]);
    labels.push(Number(outputs.labels.data[i]));
  }
  const found = { boxes, scores, labels, names: labels.map((label) => className(about, label)) };
  if (!outputs.masks) return found;
  const side = outputs.masks.dims[3];
  const masks = boxes.map((box, i) => pasteMask(outputs.masks.data.subarray(i * side * side, (i + 1) * side * side), side, box, size));
  return { ...found, masks };
}

/** The class of each pixel: the largest of its K logits, (1, K, H, W); with one logit, whether it is above 0. */
function classMap(logits) {
  const [, classes, height, width] = logits.dims;
  const map = new Uint16Array(height * width), best = logits.data.slice(0, height * width);
  if (classes === 1) for (let at = 0; at < best.length; at += 1) map[at] = best[at] > 0 ? 1 : 0;
  for (let index = 1; index < classes; index += 1) {
    const plane = index * height * width;
    for (let at = 0; at < best.length; at += 1) {
      if (logits.data[plane + at] > best[at]) {
        best[at] = logits.data[plane + at];
        map[at] = index;
      }
    }
  }
  return { height, width, map };
}

function segmentation(about, outputs) {
  const { height, width, map } = classMap(outputs.logits);
  const counts = new Map();
  for (const index of map) counts.set(index, (counts.get(index) ?? 0) + 1);
  const classes = [...counts].map(([index, pixels]) => ({ name: className(about, index), index, pixels, fraction: pixels / map.length }))
    .sort((one, other) => other.pixels - one.pixels || one.index - other.index);
  return { classes, map: { height, width, map } };
}

/** Words up to the end of the sentence; the first words of the vocabulary are its special tokens. */
function captioning(about, outputs) {
  const { words, special } = about.vocabulary;
  const caption = [];
  for (const token of Array.from(outputs.tokens.data, Number)) {
    if (token === special.eos) break;
    if (token !== special.pad && token !== special.bos) caption.push(words[token]);
  }
  const sentence = caption.join(" "), logProb = outputs.log_prob.data[0];
  const found = { caption: sentence, log_prob: logProb, n_best: [[sentence, logProb]] };
  if (!outputs.attention) return found;
  const [, , height, width] = outputs.attention.dims; // (1, T, h, w), one map a word
  const maps = caption.map((word, i) => outputs.attention.data.slice(i * height * width, (i + 1) * height * width));
  return { ...found, attention: { words: caption, height, width, maps } };
}

/** The answer of a network to an image of this size (height, width), given its outputs by name. */
function answerOf(about, outputs, size, inputSize) {
  const read = { classification, detection, segmentation, captioning }[about.kind];
  return { kind: about.kind, size, ...read(about, outputs, size, inputSize) };
}
