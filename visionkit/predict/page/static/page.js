"use strict";
// The page: loads the network from the scripts beside it, hands images to the worker, shows its answers.

const at = (id) => document.getElementById(id);
/** A fraction as "41.0%"; what is neither none nor all never reads so, as in the Python library. */
function percent(value) {
  if (value > 0 && value < 0.0005) return "<0.1%";
  if (value >= 0.9995 && value < 1) return ">99.9%";
  return `${(100 * value).toFixed(1)}%`;
}
const parts = new Map(); // name of a file -> its pieces as bytes
const options = { minScore: 0.5, opacity: 0.55, only: null };
let about = null, worker = null, ready = false, number = 0, image = null, answer = null;

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
    else if (key === "style") for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

/** Called by the scripts in data/: a piece of a file in base64, which a page opened as a file can load. */
function visionkitPart(name, index, text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = binary.charCodeAt(i);
  if (!parts.has(name)) parts.set(name, []);
  parts.get(name)[index] = bytes;
}

const fileOf = (name, type = "") => new Blob(parts.get(name), { type });

function runScript(address) {
  return new Promise((resolve, reject) => {
    const script = make("script", { src: address, on: { load: resolve, error: () => reject(new Error(`${address} cannot be loaded`)) } });
    document.head.append(script);
  });
}

async function fetchModel() {
  if (location.protocol === "file:") {
    throw new Error("this model is too large to be opened as a file. In the page's folder run: python -m http.server, then open http://localhost:8000");
  }
  const response = await fetch("model.onnx");
  if (!response.ok) throw new Error(`model.onnx: the server answered ${response.status}`);
  parts.set("model.onnx", [new Uint8Array(await response.arrayBuffer())]);
}

async function loadAll() {
  const scripts = document.body.dataset.scripts.split(" ");
  at("progress").max = scripts.length;
  for (const [index, script] of scripts.entries()) {
    await runScript(script);
    at("progress").value = index + 1;
  }
  about = JSON.parse(await fileOf("about.json").text());
  await showExamples();
  if (!parts.has("model.onnx")) await fetchModel();
  await startWorker();
  at("progress").hidden = true;
}

function startWorker() {
  ready = false;
  const address = URL.createObjectURL(fileOf("worker.js", "text/javascript"));
  worker = new Worker(address);
  return new Promise((resolve, reject) => {
    worker.onerror = (event) => reject(new Error(event.message ?? "the worker does not start"));
    worker.onmessage = ({ data: message }) => {
      if (!message.ready) return reject(new Error(message.error));
      URL.revokeObjectURL(address);
      ready = true;
      worker.onmessage = ({ data }) => receive(data);
      document.documentElement.dataset.ready = "yes";
      resolve();
      if (image) ask();
      else say("Ready.");
    };
    Promise.all([fileOf("ort.wasm").arrayBuffer(), fileOf("model.onnx").arrayBuffer()]).then(([wasm, model]) => {
      worker.postMessage({ load: { about, runtime: fileOf("ort.mjs", "text/javascript"), wasm, model } }, [wasm, model]);
    }, reject);
  });
}

async function take(file) {
  if (!file) return;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    say(`${file.name || "This"} cannot be read as an image by this browser. JPEG, PNG, WebP and GIF are read by all.`, true);
    return;
  }
  image?.bitmap.close();
  image = { file, bitmap, name: file.name || "image" };
  answer = null;
  options.only = null;
  at("answer").hidden = false;
  at("result").replaceChildren();
  at("controls").hidden = true;
  draw();
  if (ready) ask();
  else say("The image is answered once the model is loaded.");
}

function ask() {
  number += 1;
  say(`Looking at ${image.name}.`);
  worker.postMessage({ number, file: image.file });
}

function receive(message) {
  if (message.number !== number) return; // of an image that was replaced
  if (message.error) {
    say(message.error, true);
    if (message.broken) { // memory that ran out does not come back
      image = null;
      worker.terminate();
      startWorker().then(() => say(message.error, true), fail);
    }
    return;
  }
  answer = message.answer;
  const { prepare, network } = answer.times;
  const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(2)} s`;
  say(`${image.name}, ${answer.size[1]} x ${answer.size[0]} pixels: answered in ${seconds(prepare + network)} (network ${seconds(network)}).`);
  show();
}

function draw() {
  const width = Math.min(at("figure").clientWidth, (640 * image.bitmap.width) / image.bitmap.height);
  at("canvas").style.setProperty("width", `${width}px`);
  drawAnswer(at("canvas"), image.bitmap, about, answer, width, window.devicePixelRatio || 1, options);
  at("canvas").setAttribute("aria-label", `${image.name}${answer ? `: ${summary()}` : ""}`);
}

function shownBoxes() {
  return [...answer.boxes.keys()].filter((i) => answer.scores[i] >= options.minScore);
}

/** The answer in one line, as Result.summary() has it. */
function summary() {
  if (answer.caption !== undefined) return answer.caption || "no words";
  if (answer.values) return answer.values.map((value) => Number(value.toPrecision(4))).join(", ");
  if (answer.labels && answer.probabilities) return answer.labels.join(", ") || "no label";
  if (answer.label !== undefined) return `${answer.label} ${percent(answer.confidence)}`;
  if (answer.classes) return answer.classes.slice(0, 5).map((each) => `${each.name} ${percent(each.fraction)}`).join(", ");
  const counts = new Map();
  for (const i of shownBoxes()) counts.set(answer.names[i], (counts.get(answer.names[i]) ?? 0) + 1);
  return [...counts].map(([name, count]) => `${count} ${name}`).join(", ") || `nothing with a score of ${options.minScore} or more`;
}

function show() {
  const makers = { classification: showClasses, detection: showBoxes, segmentation: showMap, captioning: showCaption };
  at("score-control").hidden = !answer.boxes;
  at("opacity-control").hidden = !answer.map && !answer.masks;
  at("controls").hidden = false;
  at("save-drawing").hidden = at("save-answer").hidden = false;
  makers[answer.kind]();
  draw();
}

function makeTable(caption, heads, rows) {
  return make("table", {}, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows));
}

/** Bars of the first classes, and of the others on request. */
function makeBars(rows) {
  const bar = ({ name, probability }) => make("tr", {},
    make("th", { scope: "row" }, name),
    make("td", { class: "bar" }, make("div", { class: "track" }, make("div", { style: { width: `${100 * probability}%` } }))),
    make("td", { class: "number" }, percent(probability)));
  const heads = ["class", "", "probability"];
  const all = [makeTable("", heads, rows.slice(0, 5).map(bar))];
  if (rows.length > 5) all.push(make("details", {}, make("summary", {}, `The other ${rows.length - 5} classes`), makeTable("", heads, rows.slice(5, 205).map(bar))));
  return all;
}

function showClasses() {
  if (answer.values) {
    const rows = answer.values.map((value, i) => make("tr", {}, make("th", { scope: "row" }, about.class_names[i] ?? `value ${i}`), make("td", { class: "number" }, String(Number(value.toPrecision(5))))));
    at("result").replaceChildren(makeTable("", ["", "value"], rows));
    return;
  }
  const order = answer.probabilities.map((probability, index) => ({ name: about.class_names[index] ?? `class ${index}`, index, probability }));
  order.sort((one, other) => other.probability - one.probability || one.index - other.index);
  at("result").replaceChildren(make("p", { class: "headline" }, summary()), ...makeBars(order));
}

/** A name that shows its box, class or attention alone while it has the pointer or the focus. */
function makeName(index, ...children) {
  const alone = (only) => () => { options.only = only; draw(); };
  return make("button", { type: "button", class: "name", on: { focus: alone(index), blur: alone(null), pointerenter: alone(index), pointerleave: alone(null) } }, ...children);
}

const makeSwatch = (index) => make("span", { class: "swatch", style: { background: css(colorOf(about, index)) } });

function showBoxes() {
  const shown = shownBoxes();
  const rows = shown.map((i) => make("tr", {},
    make("th", { scope: "row" }, makeName(i, makeSwatch(answer.labels[i]), answer.names[i])), make("td", { class: "number" }, answer.scores[i].toFixed(2)),
    make("td", { class: "number" }, answer.boxes[i].map((value) => value.toFixed(0)).join(" "))));
  const hidden = answer.boxes.length - shown.length;
  at("result").replaceChildren(make("p", { class: "headline" }, summary()),
    make("p", { class: "small" }, hidden ? `${hidden} more with a lower score.` : ""),
    shown.length ? makeTable("", ["class", "score", "left, top, right, bottom"], rows) : "");
}

function showMap() {
  const rows = answer.classes.map(({ name, index, pixels, fraction }) => make("tr", {},
    make("th", { scope: "row" }, makeName(index, makeSwatch(index), name)), make("td", { class: "number" }, percent(fraction)), make("td", { class: "number" }, pixels.toLocaleString("en"))));
  at("result").replaceChildren(makeTable("", ["class", "of the image", "pixels"], rows));
}

function showCaption() {
  const probability = Math.exp(answer.log_prob);
  const words = answer.attention?.words.map((word, index) => makeName(index, word)) ?? [answer.caption];
  at("result").replaceChildren(make("p", { class: "headline words" }, ...(answer.caption ? words : ["no words"])),
    make("p", { class: "small" }, `log-probability ${answer.log_prob.toFixed(2)} (${percent(probability)})`),
    make("p", { class: "small" }, answer.attention ? "A word that has the pointer or the focus shows where the model looked." : ""));
}

/** Say which class is under the pointer. */
function readMap(event) {
  if (!answer?.map) return;
  const { height, width, map } = answer.map, frame = at("canvas").getBoundingClientRect();
  const x = Math.floor(((event.clientX - frame.left) / frame.width) * width), y = Math.floor(((event.clientY - frame.top) / frame.height) * height);
  if (x < 0 || y < 0 || x >= width || y >= height) return;
  at("pointer").textContent = about.class_names[map[y * width + x]] ?? "";
}

async function showExamples() {
  for (const name of about.examples) {
    const file = new File(parts.get(`examples/${name}`), name);
    const button = make("button", { type: "button", class: "example", on: { click: () => take(file) } },
      make("img", { src: URL.createObjectURL(file), alt: `example ${name}` }));
    at("examples").append(button);
  }
  at("examples").hidden = !about.examples.length;
}

function download(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function saveDrawing() {
  const canvas = document.createElement("canvas");
  const width = Math.min(4096, Math.max(640, image.bitmap.width));
  drawAnswer(canvas, image.bitmap, about, answer, width, 1, options);
  canvas.toBlob((blob) => download(blob, `${image.name}-answer.png`), "image/png");
}

function saveAnswer() {
  const { map, masks, attention, box, input, times, ...values } = answer;
  const text = JSON.stringify({ id: image.name, path: null, ...values }, null, 1);
  download(new Blob([text], { type: "application/json" }), `${image.name}.json`);
}

function firstImage(list) {
  const files = [...(list?.files ?? [])];
  return files.find((file) => file.type.startsWith("image/")) ?? files[0];
}

function listen() {
  at("file").addEventListener("change", () => { take(at("file").files[0]); at("file").value = ""; });
  document.addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) at("drop").classList.remove("over"); });
  document.addEventListener("drop", (event) => { event.preventDefault(); at("drop").classList.remove("over"); take(firstImage(event.dataTransfer)); });
  document.addEventListener("paste", (event) => take(firstImage(event.clipboardData)));
  at("score").addEventListener("input", () => { options.minScore = Number(at("score").value); at("score-value").textContent = at("score").value; if (answer) show(); });
  at("opacity").addEventListener("input", () => { options.opacity = Number(at("opacity").value); if (answer) draw(); });
  at("canvas").addEventListener("pointermove", readMap);
  at("canvas").addEventListener("pointerleave", () => { at("pointer").textContent = ""; });
  at("save-drawing").addEventListener("click", saveDrawing);
  at("save-answer").addEventListener("click", saveAnswer);
  new ResizeObserver(() => { if (image) draw(); }).observe(at("figure"));
}

function fail(error) {
  at("progress").hidden = true;
  say(`The model cannot be loaded: ${error.message}.`, true);
}

listen();
loadAll().catch(fail);
