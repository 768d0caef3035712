// A plot of one hour: a line over time in SVG, drawn in the available width.

import { clock, minute, say } from "./words.js";

const LEFT = 58;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 22;
const NAMESPACE = "http://www.w3.org/2000/svg";

const make = (name, attributes, text) => {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
};

/** Round numbers that part a range into about three. */
export function ticks(low, high) {
  const rough = (high - low) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let tick = Math.floor(low / step) * step; tick <= high + step * 0.999; tick += step) {
    found.push(Math.abs(tick) < step * 1e-9 ? 0 : tick);
  }
  return found;
}

export class Plot {
  /**
   * `write` writes a value, `axis` one of the axis; `fromZero` is for what has no sense of change
   * but against nothing.
   */
  constructor(host, { write, axis, fromZero }) {
    Object.assign(this, { host, write, axis, fromZero });
    this.points = [];
    this.svg = make("svg", { role: "img" });
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    host.replaceChildren(this.svg, this.tip);
    new ResizeObserver(() => this.draw()).observe(host);
    host.addEventListener("pointermove", (event) => this.point(event));
    host.addEventListener("pointerleave", () => this.unpoint());
  }

  /** Shows points [ms, value], ascending, of the span that ends now. */
  show(points, now, span, label) {
    Object.assign(this, { points, now, from: now - span, label });
    this.draw();
  }

  draw() {
    const width = this.host.clientWidth;
    const height = this.host.clientHeight;
    if (!width || this.now === undefined) return;
    const parts = [];
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("aria-label", this.label);
    this.svg.dataset.points = this.points.length;
    if (this.points.length < 2) {
      parts.push(make("text", { x: width / 2, y: height / 2, "text-anchor": "middle", class: "empty" }, say("no_points")));
      this.svg.replaceChildren(...parts);
      this.scale = undefined;
      return;
    }
    const values = this.points.map(([, value]) => value);
    let low = this.fromZero ? 0 : Math.min(...values);
    let high = Math.max(...values);
    if (high - low < Math.abs(high) * 1e-6 || high === low) {
      const room = Math.abs(high) * 0.05 || 1;
      high += room;
      low = this.fromZero || (low >= 0 && low - room < 0) ? 0 : low - room;
    }
    const marks = ticks(low, high);
    low = marks[0];
    high = marks.at(-1);
    const x = (at) => LEFT + ((at - this.from) / (this.now - this.from)) * (width - LEFT - RIGHT);
    const y = (value) => height - BOTTOM - ((value - low) / (high - low)) * (height - TOP - BOTTOM);
    this.scale = { x, y, height };
    const step = marks[1] - marks[0];
    for (const mark of marks) {
      parts.push(make("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(mark), y2: y(mark) }));
      parts.push(make("text", { x: LEFT - 8, y: y(mark) + 4, "text-anchor": "end" }, this.axis(mark, step, high)));
    }
    const apart = (width < 420 ? 20 : 10) * 60_000;
    for (let at = Math.ceil(this.from / apart) * apart; at <= this.now; at += apart) {
      // A label that would extend beyond the plot is left out.
      if (x(at) < LEFT + 14 || x(at) > width - 18) continue;
      parts.push(make("text", { x: x(at), y: height - 4, "text-anchor": "middle" }, minute(at)));
    }
    const path = this.points.map(([at, value], place) => `${place ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const [first, last] = [this.points[0], this.points.at(-1)];
    const ground = y(low).toFixed(1);
    if (this.fromZero) {
      parts.push(make("path", { class: "area", d: `${path}L${x(last[0]).toFixed(1)} ${ground}L${x(first[0]).toFixed(1)} ${ground}Z` }));
    }
    parts.push(make("path", { class: "line", d: path }));
    parts.push(make("circle", { class: "end", cx: x(last[0]), cy: y(last[1]), r: 4.5 }));
    if (this.cursor) parts.push(this.cursor);
    this.svg.replaceChildren(...parts);
  }

  point(event) {
    if (!this.scale) return;
    const left = event.clientX - this.host.getBoundingClientRect().left;
    const at = this.from + ((left - LEFT) / (this.host.clientWidth - LEFT - RIGHT)) * (this.now - this.from);
    const near = this.points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
    const x = this.scale.x(near[0]);
    this.cursor = make("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: this.scale.height - BOTTOM });
    this.tip.textContent = `${clock(near[0])}  ${this.write(near[1])}`;
    this.tip.hidden = false;
    const room = this.host.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(room, x - this.tip.offsetWidth / 2))}px`;
    this.draw();
  }

  unpoint() {
    this.cursor = undefined;
    this.tip.hidden = true;
    this.draw();
  }
}
