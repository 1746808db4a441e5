// A flame graph of folded stacks: zoom by click or Enter, search, walk with the arrow keys. Callers are on top.
import { h, text } from "./dom.js";

const ROW = 20;

/** Reads `a;b;c 12` lines into a tree {name, value, children, parent, depth}. */
export function parse(folded) {
  const root = { name: "all", value: 0, children: new Map(), parent: null, depth: 0 };
  for (const line of folded.split("\n")) {
    const cut = line.lastIndexOf(" ");
    const value = Number(line.slice(cut + 1));
    if (cut < 1 || !value) continue;
    let node = root;
    root.value += value;
    for (const name of line.slice(0, cut).split(";")) {
      let child = node.children.get(name);
      if (!child) { child = { name, value: 0, children: new Map(), parent: node, depth: node.depth + 1 }; node.children.set(name, child); }
      child.value += value;
      node = child;
    }
  }
  return root;
}

export class Flame {
  constructor() {
    this.plane = h("div");
    this.element = h("div", { class: "flame", role: "tree", ariaLabel: "Flame graph", onkeydown: event => this.key(event) }, this.plane);
    this.status = h("p", { class: "dim mono", role: "status" });
    this.word = "";
  }

  set(root) { this.root = this.zoomed = root; this.draw(); }

  /** Marks what contains `word`. */
  search(word) { this.word = word.toLowerCase(); if (this.root) this.draw(this.focused); }

  matches() {
    if (!this.word) return 0;
    const below = node => node.name.toLowerCase().includes(this.word) ? node.value : [...node.children.values()].reduce((sum, child) => sum + below(child), 0);
    return below(this.root);
  }

  draw(focus) {
    this.buttons = new Map();
    const parts = [];
    let deepest = 0;
    const place = (node, left, width, row, up) => {
      if (width < 0.0008) return;
      deepest = Math.max(deepest, row);
      const kernel = node.name.endsWith("_[k]");
      const hit = this.word && node.name.toLowerCase().includes(this.word);
      const button = h("button", {
        type: "button", role: "treeitem", tabIndex: -1, title: this.describe(node), ariaLabel: this.describe(node),
        class: [node.depth === 0 ? "all" : kernel ? "k" : "", hit ? "hit" : "", up ? "up" : ""].filter(Boolean).join(" "),
        style: { left: `${left * 100}%`, width: `${width * 100}%`, top: `${row * ROW}px` },
        onclick: () => this.zoom(node), onfocus: () => { this.focused = node; text(this.status, this.describe(node)); }, onpointerenter: () => text(this.status, this.describe(node)),
      }, node.name.replace(/_\[k\]$/, ""));
      this.buttons.set(node, button);
      parts.push(button);
      if (up) return;
      let at = left;
      for (const child of [...node.children.values()].sort((a, b) => a.name < b.name ? -1 : 1)) {
        const share = width * child.value / node.value;
        place(child, at, share, row + 1, false);
        at += share;
      }
    };
    const callers = [];
    for (let node = this.zoomed.parent; node; node = node.parent) callers.unshift(node);
    callers.forEach((node, row) => place(node, 0, 1, row, true));
    place(this.zoomed, 0, 1, callers.length, false);
    this.plane.replaceChildren(...parts);
    this.plane.style.height = `${(deepest + 1) * ROW}px`;
    (this.buttons.get(focus ?? this.zoomed) ?? parts[0]).tabIndex = 0;
    if (focus) this.buttons.get(focus)?.focus();
    if (this.word) text(this.status, `"${this.word}" is in ${(this.matches() / this.root.value * 100).toFixed(1)} % of the samples`);
  }

  describe(node) {
    return `${node.name}: ${node.value} samples, ${(node.value / this.root.value * 100).toFixed(1)} % of all`;
  }

  zoom(node) { this.zoomed = node; this.draw(node); }

  key(event) {
    const node = this.focused;
    if (!node) return;
    const around = node.parent ? [...node.parent.children.values()].sort((a, b) => a.name < b.name ? -1 : 1).filter(other => this.buttons.has(other)) : [node];
    const biggest = [...node.children.values()].filter(child => this.buttons.has(child)).sort((a, b) => b.value - a.value)[0];
    const to = { ArrowUp: node.parent, ArrowDown: biggest, ArrowLeft: around[around.indexOf(node) - 1], ArrowRight: around[around.indexOf(node) + 1], Home: this.zoomed }[event.key];
    if (event.key === "Escape") { event.preventDefault(); this.zoom(this.zoomed.parent ?? this.root); }
    else if (to) {
      event.preventDefault();
      for (const button of this.buttons.values()) button.tabIndex = -1;
      const button = this.buttons.get(to);
      if (button) { button.tabIndex = 0; button.focus(); }
    }
  }
}
