// One learning-curve figure: an SVG of all runs, a line of values under it, and a table.

import { count, make, makeSvg, makeTable, short } from "./elements.js";

const WIDTH = 460, HEIGHT = 230, LEFT = 52, RIGHT = 10, TOP = 8, BOTTOM = 34;
const MAX_POINTS = 400; // drawn of one curve; more are joined to means
const MAX_ROWS = 60; // of the table; more are left out evenly, and it says so
export const DASHES = ["", "6 4", "8 3 2 3", "2 3", "10 3", "1 2"];
const MARKS = [
  (x, y) => makeSvg("circle", { cx: x, cy: y, r: 3.5 }),
  (x, y) => makeSvg("rect", { x: x - 3, y: y - 3, width: 6, height: 6 }),
  (x, y) => makeSvg("path", { d: `M${x} ${y - 4}l4 7h-8z` }),
  (x, y) => makeSvg("path", { d: `M${x} ${y - 4}l4 4-4 4-4-4z` }),
  (x, y) => makeSvg("path", { d: `M${x} ${y + 4}l4-7h-8z` }),
  (x, y) => makeSvg("path", { d: `M${x - 4} ${y}h8M${x} ${y - 4}v8`, "stroke-width": 2 }),
];

/** The mark of an arm at a point. */
export function mark(arm, x, y) {
  const drawn = MARKS[arm % MARKS.length](x, y);
  drawn.style.setProperty("fill", `var(--arm-${arm % 6})`);
  drawn.style.setProperty("stroke", `var(--arm-${arm % 6})`);
  return drawn;
}

/** Round steps of an axis between two values. */
function steps(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const out = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) out.push(at * step || 0); // never -0
  return out;
}

/** At most MAX_POINTS points, each the mean of its neighbours; the last one stays as it is. */
function thinned(points) {
  if (points.length <= MAX_POINTS) return points;
  const size = Math.ceil(points.length / MAX_POINTS);
  const out = [];
  for (let at = 0; at < points.length - 1; at += size) {
    const part = points.slice(at, Math.min(at + size, points.length - 1));
    out.push(part.reduce((sum, [x, y]) => [sum[0] + x / part.length, sum[1] + y / part.length], [0, 0]));
  }
  return [...out, points.at(-1)];
}

/** The value of a curve at the last point at or before x, else its first. */
function nearest(points, x) {
  let low = 0, high = points.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (points[middle][0] <= x) low = middle; else high = middle - 1;
  }
  const next = points[low + 1];
  return next && Math.abs(next[0] - x) < Math.abs(points[low][0] - x) ? next : points[low];
}

/** A figure of one logged value; `draw` is called again with the curves whenever they have grown. */
export class CurveFigure {
  constructor(name) {
    this.name = name;
    this.curves = [];
    this.at = null;
    this.readout = make("p", { class: "readout", "aria-live": "off" });
    this.table = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Values of ${name}` });
    this.details = make("details", { on: { toggle: () => this.fillTable() } }, make("summary", {}, "Values"), this.table);
    this.svg = makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: 0 });
    this.svg.addEventListener("pointermove", (event) => {
      const box = this.svg.getBoundingClientRect();
      this.point(this.toImages(((event.clientX - box.left) / box.width) * WIDTH));
    });
    this.svg.addEventListener("pointerleave", () => this.point(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("blur", () => { this.readout.setAttribute("aria-live", "off"); this.point(null); });
    this.element = make("figure", {}, make("figcaption", {}, name), this.svg, this.readout, this.details);
  }

  /** `curves`: [{label, arm, points: [[images, value], ...]}]; `planned`: images of the longest of their runs. */
  draw(curves, planned) {
    const mark = curves.map((curve) => `${curve.label}:${curve.points.length}:${curve.points.at(-1)?.[0]}`).join() + planned;
    if (mark === this.drawnAs) return;
    this.drawnAs = mark;
    this.curves = curves.filter((curve) => curve.points.length);
    const all = this.curves.flatMap((curve) => thinned(curve.points));
    if (!all.length) return;
    const ys = all.map((point) => point[1]).sort((a, b) => a - b);
    // One wild value of the first steps must not flatten the rest of a long curve.
    const top = ys.length > 60 ? ys[Math.floor(ys.length * 0.985)] : ys.at(-1);
    const pad = (top - ys[0]) * 0.08 || Math.abs(top) * 0.1 || 0.1;
    this.x = [0, Math.max(planned || 0, ...all.map((point) => point[0]), 1)];
    this.y = [ys[0] >= 0 && ys[0] - pad < 0 ? 0 : ys[0] - pad, top + pad];
    this.render();
    if (this.details.open) this.fillTable();
    this.point(this.at);
  }

  toX(images) { return LEFT + ((images - this.x[0]) / (this.x[1] - this.x[0])) * (WIDTH - LEFT - RIGHT); }
  toY(value) {
    const y = TOP + ((this.y[1] - value) / (this.y[1] - this.y[0])) * (HEIGHT - TOP - BOTTOM);
    return Math.max(TOP - 2, Math.min(HEIGHT - BOTTOM + 2, y));
  }
  toImages(x) { return this.x ? this.x[0] + ((x - LEFT) / (WIDTH - LEFT - RIGHT)) * (this.x[1] - this.x[0]) : 0; }

  render() {
    const parts = [];
    for (const value of steps(...this.y, 4)) {
      const y = this.toY(value);
      parts.push(makeSvg("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }));
      parts.push(makeSvg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, short(value)));
    }
    for (const images of steps(...this.x, 4)) {
      const text = images >= 1e6 ? `${short(images / 1e6)}M` : images >= 1e4 ? `${short(images / 1e3)}k` : count(images);
      parts.push(makeSvg("text", { x: this.toX(images), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, text));
    }
    parts.push(makeSvg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 2, "text-anchor": "middle" }, "images seen"));
    for (const curve of this.curves) {
      const points = thinned(curve.points).map(([x, y]) => [this.toX(x), this.toY(y)]);
      const d = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
      const line = makeSvg("path", { class: "line", d, "stroke-dasharray": DASHES[curve.arm % DASHES.length] || null });
      line.style.setProperty("stroke", `var(--arm-${curve.arm % 6})`);
      parts.push(line);
      for (const [x, y] of points.length <= 30 ? points : [points.at(-1)]) parts.push(mark(curve.arm, x, y));
    }
    this.overlay = makeSvg("g");
    this.svg.replaceChildren(...parts, this.overlay);
    const said = this.curves.map((curve) => `${curve.label} ${short(curve.points.at(-1)[1])}`).join("; ");
    this.svg.setAttribute("aria-label", `${this.name} over images seen; latest: ${said}. Arrow keys read it.`);
  }

  key(event) {
    const moves = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || !this.curves.length) return;
    event.preventDefault();
    this.readout.setAttribute("aria-live", "polite");
    const stops = [...new Set(this.curves.flatMap((curve) => curve.points.map((point) => point[0])))].sort((a, b) => a - b);
    const here = this.at === null ? stops.length - 1 : Math.max(0, stops.findLastIndex((stop) => stop <= this.at));
    this.point(stops[Math.max(0, Math.min(stops.length - 1, here + moves[event.key]))]);
  }

  /** Show the values at a number of images; null shows the latest. */
  point(images) {
    this.at = images;
    if (!this.curves.length) return;
    const read = this.curves.map((curve) => [curve, images === null ? curve.points.at(-1) : nearest(curve.points, images)]);
    const shown = read.map(([curve, [x, y]]) => `${curve.label} ${short(y)} at ${count(x)}`).join(" · ");
    this.readout.textContent = `${images === null ? "latest: " : ""}${shown}`;
    const x = images === null ? null : Math.max(LEFT, Math.min(WIDTH - RIGHT, this.toX(images)));
    this.overlay?.replaceChildren(...(x === null ? [] : [
      makeSvg("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }),
      ...read.map(([curve, [px, py]]) => mark(curve.arm, this.toX(px), this.toY(py))),
    ]));
  }

  fillTable() {
    if (!this.details.open) return;
    const stops = [...new Set(this.curves.flatMap((curve) => curve.points.map((point) => point[0])))].sort((a, b) => a - b);
    const every = Math.ceil(stops.length / MAX_ROWS);
    const chosen = stops.filter((_, index) => (stops.length - 1 - index) % every === 0);
    const values = this.curves.map((curve) => new Map(curve.points));
    const note = every > 1 ? `Every ${every}th of ${count(stops.length)} rows; metrics.csv has them all.` : "";
    this.table.replaceChildren(makeTable(note, ["images", ...this.curves.map((curve) => curve.label)],
      chosen.map((stop) => [count(stop), ...values.map((map) => short(map.get(stop)))]),
      [0, ...this.curves.map((_, index) => index + 1)]));
  }
}
