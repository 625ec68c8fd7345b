// The page: one request every two seconds while it is in view, for what it does not have yet.

import { CurveFigure, DASHES, mark } from "./curves.js";
import { count, duration, make, makeSvg, makeTable, short } from "./elements.js";

const EVERY = 2000; // milliseconds between requests
const MAX_OPEN = 2; // runs whose layers are drawn without being asked for
const at = (id) => document.getElementById(id);
const runs = new Map(); // key -> {shown, series: Map(name -> points), generation, count}
const figures = new Map(); // name of a logged value -> CurveFigure
const layers = new Map(); // key of a run -> LayerCard
const samples = new Map(); // key of a run -> SampleCard
let arms = []; // inits, in the order of their colours
let chosen = null; // names of the curves shown; null until the reader chooses

const label = (run) => {
  const alone = [...runs.values()].filter((other) => other.shown.init === run.init).length === 1;
  return alone ? short(run.init) : run.name;
};

function take(run) {
  const had = runs.get(run.key);
  const entry = had && run.curves.begin ? had : { series: new Map(), count: 0 };
  entry.generation = run.curves.generation;
  entry.count = run.curves.begin + run.curves.rows.length;
  for (const [index, images, value] of run.curves.rows) {
    const name = run.curves.names[index];
    if (!entry.series.has(name)) entry.series.set(name, []);
    const points = entry.series.get(name);
    // A value that is logged twice for as many images counts once, the later one.
    if (points.length && points.at(-1)[0] === images) points.at(-1)[1] = value;
    else points.push([images, value]);
  }
  entry.shown = run;
  runs.set(run.key, entry);
}

function showRuns(list, folders) {
  if (!list.length) {
    at("runs").replaceChildren(make("p", {}, `No run yet in ${folders.join(", ")}. This page shows it as soon as one begins.`));
    return;
  }
  const heads = ["run", "state", "backbone", "images seen", "images/s", "time left", "score"];
  const rows = list.map((run) => {
    const scored = run.monitor ? runs.get(run.key).series.get(run.monitor[0])?.at(-1) : null;
    const share = run.planned ? run.images / run.planned : 0;
    return [
      run.name,
      make("span", {}, make("span", { class: `state ${run.state.split(" ")[0]}` }, run.state), run.why ? make("div", { class: run.state === "failed" ? "why" : "small" }, run.why) : null),
      `${run.backbone}${run.data ? ` on ${run.data.split("/").filter(Boolean).at(-1)}` : ""}`,
      make("span", {}, run.planned ? make("progress", { max: 1, value: share, "aria-label": `${run.name}: ${Math.round(100 * share)}% of its images` }) : null, ` ${count(run.images)}${run.planned ? ` of ${count(run.planned)}` : ""}`),
      run.speed ? short(Number(run.speed.toPrecision(3))) : "",
      duration(run.left),
      scored ? `${run.monitor[0]} ${short(scored[1])}` : "",
    ];
  });
  at("runs").replaceChildren(make("div", { class: "scroll" }, makeTable("", heads, rows)));
  const torn = list.filter((run) => run.unreadable);
  if (torn.length) at("runs").append(make("p", { class: "small" }, torn.map((run) => `${run.name}: ${run.unreadable} rows of metrics.csv are unreadable and left out.`).join(" ")));
}

function showLegend() {
  at("legend").replaceChildren(...arms.map((arm, index) => make("span", {},
    makeSvg("svg", { viewBox: "0 0 36 12", "aria-hidden": "true" },
      makeSvg("line", { x1: 0, x2: 36, y1: 6, y2: 6, "stroke-width": 2, style: { stroke: `var(--arm-${index % 6})` }, "stroke-dasharray": DASHES[index % DASHES.length] || null }),
      mark(index, 18, 6)),
    arm)));
}

function defaults(names, list) {
  const monitors = list.map((run) => run.monitor?.[0]).filter(Boolean);
  const first = [...new Set([...monitors, "train/loss", "val/loss"])].filter((name) => names.includes(name));
  return first.length ? first : names.slice(0, 3);
}

function showCurves(list) {
  const names = [...new Set([...runs.values()].flatMap((run) => [...run.series.keys()]))].sort();
  if (!names.length) {
    at("curves").replaceChildren(make("p", { class: "small" }, "No values yet; the first come after some updates."));
    return;
  }
  const shown = chosen ?? new Set(defaults(names, list));
  const boxes = [...at("names").querySelectorAll("input")].map((box) => box.value);
  if (boxes.join() !== names.join()) {
    at("names").replaceChildren(make("legend", {}, "Logged values"), ...names.map((name) => {
      const box = make("input", { type: "checkbox", value: name });
      box.checked = shown.has(name);
      box.addEventListener("change", () => {
        chosen = new Set([...at("names").querySelectorAll("input")].filter((each) => each.checked).map((each) => each.value));
        showCurves(list);
      });
      return make("label", {}, box, ` ${name}`);
    }));
  }
  if (!chosen) for (const box of at("names").querySelectorAll("input")) box.checked = shown.has(box.value);
  const wanted = [...shown].filter((name) => names.includes(name));
  for (const name of wanted) {
    if (!figures.has(name)) figures.set(name, new CurveFigure(name));
    const logged = list.filter((run) => runs.get(run.key).series.has(name));
    const curves = logged.map((run) => ({ label: label(run), arm: arms.indexOf(run.init), points: runs.get(run.key).series.get(name) }));
    figures.get(name).draw(curves, Math.max(0, ...logged.map((run) => run.planned ?? 0)));
  }
  keep(at("curves"), wanted.map((name) => figures.get(name).element));
}

/** Give a parent these children, without touching it where it has them already (the focus stays). */
function keep(parent, children) {
  if (parent.childNodes.length === children.length && children.every((child, i) => child === parent.childNodes[i])) return;
  parent.replaceChildren(...children);
}

class LayerCard {
  constructor(run, open) {
    this.at = null; // number of the frame that the reader has chosen; null: the latest
    this.drawnAs = "";
    this.note = make("p", { class: "small" });
    this.slider = make("input", { type: "range", min: 0, max: 0, step: 1, id: `frame-${run.key}` });
    this.slider.addEventListener("input", () => { this.at = Number(this.slider.value) === this.frames.length - 1 ? null : this.frames[Number(this.slider.value)].number; this.draw(); });
    this.which = make("span");
    this.bar = make("div", { class: "frames", hidden: true }, make("label", { for: `frame-${run.key}` }, "checkpoint"), this.slider, this.which);
    this.inputs = make("div", { class: "inputs" });
    this.parts = make("div");
    this.frames = [];
    this.title = make("span", {}, label(run));
    this.element = make("details", { class: "card", open }, make("summary", {}, make("h3", { style: { display: "inline" } }, this.title)), this.note, this.bar, this.inputs, this.parts);
  }

  update(run) {
    this.key = run.key;
    this.title.textContent = label(run);
    const inputs = Object.entries(run.figures).filter(([name]) => name.startsWith("figures/watch/")).slice(0, 4);
    keepImages(this.inputs, inputs.map(([name, version], i) => [`/file/${run.key}/${name}?v=${version}`, `image ${i + 1} that the maps are of`]));
    if (!run.layers) return;
    this.frames = run.layers.frames;
    const waits = run.state === "waiting" ? "This run has not begun." : "Being drawn.";
    this.note.textContent = run.layers.note || (this.frames.length ? "" : waits);
    this.draw();
  }

  draw() {
    if (!this.frames.length) return;
    const found = this.frames.findIndex((frame) => frame.number === this.at);
    const index = found < 0 ? this.frames.length - 1 : found;
    const frame = this.frames[index];
    this.bar.hidden = false;
    this.slider.max = this.frames.length - 1;
    this.slider.value = index;
    this.which.textContent = `${count(frame.images)} images seen (${index + 1} of ${this.frames.length})`;
    this.slider.setAttribute("aria-valuetext", this.which.textContent);
    if (this.drawnAs === `${frame.number}`) return;
    this.drawnAs = `${frame.number}`;
    const open = new Set([...this.parts.querySelectorAll("details[open]")].map((each) => each.dataset.part));
    this.parts.replaceChildren(...frame.parts.map((part, number) => {
      const details = make("details", { "data-part": number, open: open.has(String(number)) }, make("summary", {}, "Values"),
        make("div", { class: "scroll" }, makeTable(part.about, ["", "value"], Object.entries(part.rows))));
      return make("div", {}, make("h4", {}, part.title), make("img", { class: "layer", src: `/layers/${this.key}/${part.png}`, alt: `${part.title}. ${part.about}` }), details);
    }));
  }
}

function keepImages(parent, wanted) {
  if ([...parent.children].map((child) => child.getAttribute("src")).join() === wanted.map(([src]) => src).join()) return;
  parent.replaceChildren(...wanted.map(([src, alt]) => make("img", { src, alt, loading: "lazy" })));
}

class SampleCard {
  constructor(run) {
    this.version = -1;
    this.title = make("h3", {}, label(run));
    this.sheets = make("div");
    this.table = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Predictions of ${run.name}` });
    this.details = make("details", { hidden: true }, make("summary", {}, "Values"), this.table);
    this.element = make("div", { class: "card" }, this.title, this.sheets, this.details);
  }

  async update(run) {
    this.title.textContent = label(run);
    const names = { "figures/val-random.png": "Validation images drawn at random, with truth and prediction", "figures/val-worst.png": "Validation images with the highest loss", "figures/train-batch.png": "The first training batch, as the network receives it" };
    const wanted = Object.entries(names).filter(([name]) => run.figures[name]).map(([name, text]) => [`/file/${run.key}/${name}?v=${run.figures[name]}`, text]);
    const had = [...this.sheets.querySelectorAll("img")].map((each) => each.getAttribute("src")).join();
    if (had !== wanted.map(([src]) => src).join()) {
      this.sheets.replaceChildren(...wanted.flatMap(([src, text]) => [make("h4", {}, text), make("img", { class: "sheet", src, alt: `${text}: ${run.name}`, loading: "lazy" })]));
    }
    if (!wanted.length) this.sheets.replaceChildren(make("p", { class: "small" }, "No images yet."));
    if (run.samples === this.version) return;
    this.version = run.samples;
    if (!run.samples) return;
    const rows = await (await fetch(`/api/predictions/${run.key}`)).json();
    this.details.hidden = !rows.length;
    this.table.replaceChildren(makeTable("The images above, worst first.", ["image", "id", "truth", "prediction", "confidence", "loss"],
      rows.map((row) => [make("img", { class: "thumb", src: `/file/${run.key}/${row.image}?v=${run.samples}`, alt: "", loading: "lazy" }), row.id, short(row.truth), short(row.prediction), short(row.confidence), short(row.loss)]), [4, 5]));
  }
}

function showCards(list) {
  const firsts = new Set(arms.map((arm) => list.find((run) => run.init === arm).key).slice(0, MAX_OPEN));
  for (const run of list) {
    if (!layers.has(run.key)) layers.set(run.key, new LayerCard(run, firsts.has(run.key)));
    layers.get(run.key).update(run);
    if (!samples.has(run.key)) samples.set(run.key, new SampleCard(run));
    samples.get(run.key).update(run).catch(() => {});
  }
  keep(at("layers"), list.map((run) => layers.get(run.key).element));
  keep(at("samples"), list.map((run) => samples.get(run.key).element));
}

async function refresh() {
  const query = new URLSearchParams();
  for (const [key, run] of runs) query.append("known", `${key}:${run.generation}:${run.count}`);
  for (const [key, card] of layers) if (card.element.open) query.append("look", key);
  const answer = await fetch(`/api/state?${query}`);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  const state = await answer.json();
  const present = new Set(state.runs.map((run) => run.key));
  for (const key of runs.keys()) if (!present.has(key)) runs.delete(key);
  state.runs.forEach(take);
  const inits = [...new Set(state.runs.map((run) => run.init))];
  const fixed = ["pretrained", "scratch"];
  const ordered = [...fixed.filter((name) => inits.includes(name) || inits.length), ...inits.filter((name) => !fixed.includes(name))];
  arms = ordered.filter((name) => inits.includes(name));
  if (arms.length && arms[0] === "scratch") arms.unshift("pretrained"); // scratch keeps its colour
  const list = state.runs;
  showRuns(list, state.folders);
  showCurves(list);
  arms = arms.filter((name) => inits.includes(name));
  showCards(list);
  showLegend();
  const going = list.filter((run) => run.state === "running").length;
  at("connection").textContent = `${list.length} run${list.length === 1 ? "" : "s"}, ${going} running; read ${new Date().toLocaleTimeString()}`;
  document.title = going ? `${going} running - visionkit watch` : "visionkit watch";
}

async function loop() {
  if (!document.hidden) {
    try {
      await refresh();
      document.documentElement.dataset.ready = "yes";
    } catch (error) {
      at("connection").textContent = `The command visionkit watch does not answer (${error.message}); trying again.`;
    }
  }
  setTimeout(loop, EVERY);
}

loop();
