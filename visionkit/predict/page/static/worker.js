"use strict";
// Beside the page, so that it answers while the network computes: decodes, resizes, runs the network.

let ort = null, session = null, about = null;

/** Start onnxruntime-web from its bytes: a page that was opened as a file may load none by address. */
async function load({ about: given, runtime, wasm, model }) {
  about = given;
  const address = URL.createObjectURL(runtime); // one that only this worker can load
  ort = await import(address);
  URL.revokeObjectURL(address);
  ort.env.wasm.numThreads = 1; // more need headers that a page cannot give itself
  ort.env.wasm.wasmBinary = wasm;
  session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
}

/** The image's pixels, upright, transparent ones over white, as the Python library has them. */
async function decode(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error("This browser cannot read it as an image. JPEG, PNG, WebP and GIF are read by all.");
  }
  const { width, height } = bitmap;
  if (width * height > about.max_pixels) {
    throw new Error(`It has ${Math.round(width * height / 1e6)} megapixels; at most ${about.max_pixels / 1e6} are read.`);
  }
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

function toTensor(planes, [height, width]) {
  if (about.input.dtype === "uint8") return new ort.Tensor("uint8", planes, [1, 3, height, width]);
  const levels = Float32Array.from({ length: 256 }, (_, level) => level / 255);
  return new ort.Tensor("float32", Float32Array.from(planes, (level) => levels[level]), [1, 3, height, width]);
}

async function answer(file) {
  const begin = performance.now();
  const { data, width, height } = await decode(file);
  const { box, size } = geometry(about.preprocess, height, width);
  if (about.size && about.size.join() !== size.join()) {
    throw new Error(`This model takes images of ${about.size[1]} x ${about.size[0]} pixels only, but this one has ${size[1]} x ${size[0]}.`);
  }
  const tensor = toTensor(cropResize(data, width, box, size), size);
  const prepared = performance.now();
  let outputs;
  try {
    outputs = await session.run({ [about.input.name]: tensor });
  } catch (error) {
    const text = `The network failed on ${size[1]} x ${size[0]} pixels, which may be more than a browser's memory holds: ${error.message ?? error}`;
    throw Object.assign(new Error(text), { broken: true });
  }
  const ran = performance.now();
  const found = answerOf(about, outputs, [height, width], size);
  for (const output of Object.values(outputs)) output.dispose();
  return { ...found, box, input: size, times: { prepare: prepared - begin, network: ran - prepared } };
}

onmessage = async ({ data: message }) => {
  try {
    if (message.load) {
      await load(message.load);
      postMessage({ ready: true });
    } else {
      postMessage({ number: message.number, answer: await answer(message.file) });
    }
  } catch (error) {
    postMessage({ number: message.number, error: error.message ?? String(error), broken: Boolean(error.broken) });
  }
};
