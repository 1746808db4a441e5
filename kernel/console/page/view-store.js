// The store as a tree: search it, watch values, change what can be changed.
import { h, card, fill, failure, text } from "./dom.js";
import { json, live, read, write } from "./api.js";
import * as f from "./format.js";

const encode = name => encodeURIComponent(name);
const join = (path, name) => `${path === "/" ? "" : path}/${encode(name)}`;

export async function show(main, endings, path) {
  const search = h("input", { type: "search", class: "wide", placeholder: "search paths and help", ariaLabel: "Search the store", oninput: () => find() });
  const found = h("ul", { class: "tree", hidden: true });
  const tree = h("ul", { class: "tree" });
  const note = h("p", { class: "dim", role: "status" });
  main.append(card(null, h("div", { class: "row" }, search), note, found, tree));
  let schema = null, findings = [];
  const find = async () => {
    const word = search.value.trim().toLowerCase();
    found.hidden = !word; tree.hidden = Boolean(word);
    for (const end of findings.splice(0)) end();
    if (!word) { text(note, ""); return; }
    try { schema ??= flatten(await json("GET", "/api/schema"), "/"); } catch (error) { fill(note, failure(error)); return; }
    if (word !== search.value.trim().toLowerCase()) return;
    const hits = schema.filter(([path, node]) => `${path} ${node.help ?? ""}`.toLowerCase().includes(word));
    text(note, `${hits.length} found${hits.length > 200 ? ", the first 200 shown" : ""}`);
    fill(found, ...hits.slice(0, 200).map(([path, node]) => item(path, path, node, findings)));
  };
  endings.push(() => { for (const end of findings) end(); });
  try {
    const root = await read("/", 1);
    fill(tree, ...children("/", root, endings));
    await open(tree, path);
  } catch (error) { fill(note, failure(error)); }
}

/** All nodes of a schema as [path, node]. */
function flatten(node, path) {
  const own = path === "/" ? [] : [[path, node]];
  return own.concat(Object.entries(node.children ?? {}).flatMap(([name, child]) => flatten(child, join(path, name))));
}

/** Opens the branches that the address names. */
async function open(tree, names) {
  let level = tree;
  for (const name of names) {
    const element = [...level.children].find(child => child.dataset.name === name);
    const twist = element?.querySelector(":scope > .node > .twist");
    if (!twist) return;
    if (twist.getAttribute("aria-expanded") === "false") await element.toggle();
    element.scrollIntoView({ block: "center" });
    level = element.querySelector(":scope > .tree");
    if (!level) return;
  }
}

const children = (path, node, endings) => Object.entries(node.children ?? {}).sort(([a, x], [b, y]) =>
  (x.type === "branch") - (y.type === "branch") || a.localeCompare(b, undefined, { numeric: true })).map(([name, child]) => item(join(path, name), name, child, endings));

function item(path, name, node, endings) {
  return node.type === "branch" ? branch(path, name, node, endings) : leaf(path, name, node, endings);
}

function branch(path, name, node, endings) {
  const twist = h("button", { type: "button", class: "twist", ariaLabel: `Open ${name}`, "aria-expanded": "false", onclick: () => element.toggle() }, "▸");
  const element = h("li", { "data-name": name }, h("div", { class: "node" }, twist, h("span", { class: "name" }, `${name}/`), h("span", { class: "help" }, node.help ?? "")));
  let below = null, inner = [];
  endings.push(() => { for (const end of inner) end(); });
  element.toggle = async () => {
    if (below) {
      below.remove(); below = null;
      for (const end of inner.splice(0)) end();
    } else {
      try { const read_ = await read(path, 1); below = h("ul", { class: "tree" }, ...children(path, read_, inner)); }
      catch (error) { below = h("ul", { class: "tree" }, h("li", {}, failure(error))); }
      if (!below.childElementCount) below.append(h("li", { class: "empty" }, "empty"));
      element.append(below);
    }
    twist.textContent = below ? "▾" : "▸";
    twist.setAttribute("aria-expanded", String(Boolean(below)));
    twist.ariaLabel = `${below ? "Close" : "Open"} ${name}`;
  };
  return element;
}

function leaf(path, name, node, endings) {
  const value = h("span", { class: "value" });
  const line = h("div", { class: "node" }, h("span", { class: "twist" }, " "), h("span", { class: "name" }, name), value);
  let known = node.value;
  const update = now => { known = now; text(value, f.byType(now, node.type, node.unit)); value.title = typeof now === "object" ? JSON.stringify(now, null, 1) : String(now); };
  if (known !== undefined) update(known);
  endings.push(live.watch(path, { depth: 0 }, (values, message) => { if (message.error) text(value, message.error.message); else if (values.has(path)) update(values.get(path)); }));
  line.append(h("span", { class: "tag" }, node.type + (node.unit ? `, ${node.unit}` : "")));
  if (node.writable) line.append(h("button", { type: "button", class: "small", onclick: event => edit(path, name, node, known, line, event.target) }, "change"));
  line.append(h("span", { class: "help" }, node.help ?? ""));
  return h("li", { "data-name": name }, line);
}

/** A field in place of the button, of the kind that the type asks for. */
function edit(path, name, node, value, line, button) {
  const label = `New value of ${name}`;
  const input = node.choices ? h("select", { ariaLabel: label }, ...node.choices.map(choice => h("option", { value: choice, selected: choice === value }, String(choice))))
    : node.type === "bool" ? h("select", { ariaLabel: label }, h("option", { value: "true", selected: value === true }, "true"), h("option", { value: "false", selected: value === false }, "false"))
    : h("input", { type: ["integer", "size", "duration", "float"].includes(node.type) ? "number" : "text", step: "any", class: "wide", ariaLabel: label, value: typeof value === "object" ? JSON.stringify(value) : String(value ?? ""), min: node.range?.[0], max: node.range?.[1] });
  const note = h("span", { class: "bad", role: "alert" });
  const close = () => { form.remove(); button.hidden = false; button.focus(); };
  const form = h("form", { class: "row", onkeydown: event => { if (event.key === "Escape") close(); }, onsubmit: async event => {
    event.preventDefault();
    try { await write(path, parsed(node.type, input.value)); close(); }
    catch (error) { text(note, error.message); }
  } }, input, h("button", { type: "submit", class: "small primary" }, "Set"), h("button", { type: "button", class: "small", onclick: close }, "Cancel"), note);
  button.hidden = true;
  button.after(form);
  input.focus();
}

/** What was typed, as the type's JSON. */
function parsed(type, typed) {
  if (type === "bool") return typed === "true";
  if (["integer", "size", "duration", "float"].includes(type)) return Number(typed);
  if (type === "list" || type === "map") return JSON.parse(typed);
  return typed;
}
