// Live line graphs on a canvas. A graph also says its newest values in words, for those who cannot see it.
import { h, text } from "./dom.js";

const KEEP = 120;
const charts = new Set();
const colour = n => getComputedStyle(document.documentElement).getPropertyValue(`--c${n % 8}`).trim();

/** A graph of the last two minutes. `show` formats a value; `top` fixes the upper end; `stacked` fills series on one another. */
export class Chart {
  constructor(title, { show, top = 0, stacked = false, legend = true }) {
    Object.assign(this, { title, show, top, stacked });
    this.series = new Map();
    this.length = 0;
    this.canvas = h("canvas", { class: "chart", role: "img", ariaLabel: title });
    this.legend = h("ul", { class: "legend" });
    this.element = h("div", {}, this.canvas, legend && this.legend);
    this.pointer = null;
    this.canvas.addEventListener("pointermove", event => { this.pointer = event.offsetX; this.draw(); });
    this.canvas.addEventListener("pointerleave", () => { this.pointer = null; this.draw(); });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    charts.add(this);
  }

  /** Adds one moment: an object of names and values. */
  push(values) {
    for (const name of Object.keys(values)) {
      if (!this.series.has(name)) {
        const n = this.series.size;
        const label = h("li", { style: { "--swatch": `var(--c${n % 8})` } });
        this.legend.append(label);
        this.series.set(name, { points: Array(this.length).fill(NaN), label, n });
      }
    }
    for (const [name, series] of this.series) {
      series.points.push(values[name] ?? NaN);
      if (series.points.length > KEEP) series.points.shift();
    }
    this.length = Math.min(this.length + 1, KEEP);
    this.draw();
  }

  draw() {
    const { canvas } = this;
    if (!canvas.isConnected) { if (this.shown) charts.delete(this); return; }
    this.shown = true;
    const scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * scale)) { canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale); }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const all = [...this.series.values()];
    const at = n => this.stacked ? all.reduce((sum, s) => sum + (s.points[n] || 0), 0) : Math.max(...all.map(s => s.points[n] || 0));
    let highest = this.top;
    if (!highest) { for (let n = 0; n < this.length; n++) highest = Math.max(highest, at(n)); highest = highest * 1.1 || 1; }
    const x = n => width - (this.length - 1 - n) * (width / (KEEP - 1));
    const y = value => height - 2 - (value / highest) * (height - 16);
    const style = getComputedStyle(document.documentElement);
    pen.strokeStyle = style.getPropertyValue("--line"); pen.lineWidth = 1;
    pen.beginPath();
    for (const part of [0, 0.5, 1]) { const line = Math.round(y(highest * part)) + 0.5; pen.moveTo(0, line); pen.lineTo(width, line); }
    pen.stroke();
    pen.fillStyle = style.getPropertyValue("--dim"); pen.font = "11px system-ui, sans-serif";
    pen.fillText(this.show(highest), 2, 11);
    const floor = Array(this.length).fill(0);
    for (const series of all) {
      const line = series.points.map((value, n) => Number.isNaN(value) ? NaN : value + (this.stacked ? floor[n] : 0));
      pen.strokeStyle = pen.fillStyle = colour(series.n);
      pen.lineWidth = 1.6;
      let begun = false;
      pen.beginPath();
      line.forEach((value, n) => {
        if (Number.isNaN(value)) { begun = false; return; }
        if (begun) pen.lineTo(x(n), y(value)); else pen.moveTo(x(n), y(value));
        begun = true;
      });
      pen.stroke();
      const first = line.findIndex(value => !Number.isNaN(value));
      if (first >= 0) {
        for (let n = this.length - 1; n >= first; n--) pen.lineTo(x(n), y(this.stacked ? floor[n] : 0));
        pen.globalAlpha = this.stacked ? 0.45 : 0.13;
        pen.fill();
        pen.globalAlpha = 1;
      }
      if (this.stacked) line.forEach((value, n) => { if (!Number.isNaN(value)) floor[n] = value; });
    }
    let shown = this.length - 1;
    if (this.pointer !== null && this.length > 1) {
      shown = Math.max(0, Math.min(this.length - 1, Math.round(this.length - 1 - (width - this.pointer) / (width / (KEEP - 1)))));
      pen.strokeStyle = style.getPropertyValue("--dim"); pen.lineWidth = 1;
      pen.beginPath(); pen.moveTo(x(shown), 0); pen.lineTo(x(shown), height); pen.stroke();
    }
    const words = [];
    for (const [name, series] of this.series) {
      const value = series.points[shown];
      const said = `${name} ${Number.isNaN(value) ? "–" : this.show(value)}`;
      text(series.label, said);
      words.push(said);
    }
    canvas.ariaLabel = `${this.title}: ${words.join(", ")}`;
  }
}

/** Draws all graphs again, after a change of colours. */
export function redraw() { for (const chart of charts) chart.draw(); }

/** A bar divided by shares: {name: value}. */
export class Stack {
  constructor(title, show) {
    this.title = title; this.show = show;
    this.bar = h("div", { class: "stack", role: "img" });
    this.legend = h("ul", { class: "legend" });
    this.element = h("div", {}, this.bar, this.legend);
    this.parts = new Map();
  }
  set(values) {
    const total = Object.values(values).reduce((sum, value) => sum + value, 0) || 1;
    for (const [name, value] of Object.entries(values)) {
      let part = this.parts.get(name);
      if (!part) {
        const swatch = { "--swatch": `var(--c${this.parts.size % 8})`, background: `var(--c${this.parts.size % 8})` };
        part = { bar: h("i", { style: { background: swatch.background }, title: name }), label: h("li", { style: { "--swatch": swatch["--swatch"] } }) };
        this.parts.set(name, part);
        this.bar.append(part.bar); this.legend.append(part.label);
      }
      part.bar.style.width = `${value / total * 100}%`;
      text(part.label, `${name} ${this.show(value)}`);
    }
    this.bar.ariaLabel = `${this.title}: ${Object.entries(values).map(([name, value]) => `${name} ${this.show(value)}`).join(", ")}`;
  }
}

/** Bars of a histogram: pairs of a label and a count. */
export function bars(pairs, title) {
  const most = Math.max(1, ...pairs.map(([, value]) => value));
  return h("div", { class: "bars", style: { "--columns": pairs.length }, role: "img", ariaLabel: `${title}: ${pairs.filter(([, value]) => value).map(([label, value]) => `${label}: ${value}`).join(", ")}` },
    ...pairs.map(([label, value]) => h("div", { title: `${label}: ${value}` }, h("i", { style: { height: `${value / most * 100}%` } }))),
    ...pairs.map(([label]) => h("small", {}, label)));
}
