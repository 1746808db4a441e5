// Memory: frames by use, and the program's address space.
import { h, card, fill, Table, failure, text } from "./dom.js";
import { json, live, nest } from "./api.js";
import * as f from "./format.js";

export function show(main, endings) {
  const facts = h("dl", { class: "facts" });
  const search = h("input", { type: "search", class: "wide", placeholder: "filter by path or permissions", ariaLabel: "Filter the map", oninput: () => render() });
  const sum = h("span", { class: "dim" });
  const table = new Table("Address space", [
    { key: "start", title: "From" }, { key: "end", title: "To" },
    { key: "length", title: "Size", num: true, show: row => f.bytes(row.length) },
    { key: "resident", title: "Resident", num: true, show: row => f.bytes(row.resident) },
    { key: "dirty", title: "Dirty", num: true, show: row => f.bytes(row.dirty) },
    { key: "permissions", title: "Access" }, { key: "path", title: "What", show: row => row.path ?? "", wrap: true },
  ], { sort: "start", key: row => row.start });
  const errors = h("div");
  let rows = [];
  const render = () => {
    const word = search.value.toLowerCase();
    const shown = word ? rows.filter(row => `${row.permissions} ${row.path}`.toLowerCase().includes(word)) : rows;
    table.show(shown);
    text(sum, `${shown.length} areas, ${f.bytes(shown.reduce((sum, row) => sum + row.length, 0))}, ${f.bytes(shown.reduce((sum, row) => sum + row.resident, 0))} resident`);
  };
  const load = async () => {
    try {
      rows = (await json("GET", "/api/maps")).map(row => ({ ...row, start: row.start.padStart(14), length: Number(BigInt(row.end) - BigInt(row.start)) }));
      fill(errors);
      render();
    } catch (error) { fill(errors, failure(error)); }
  };
  main.append(card("By use", facts), card("Address space", h("div", { class: "row" }, search, h("button", { type: "button", onclick: load }, "Refresh"),
    h("a", { class: "button", href: "/api/core", download: "core" }, "Save a core file"), sum), errors, table.element));
  endings.push(live.watch("/memory", { depth: 2 }, values => {
    fill(facts, ...Object.entries(nest(values, "/memory")).filter(([, value]) => typeof value === "number").flatMap(([key, value]) =>
      [h("dt", {}, key.replaceAll("_", " ")), h("dd", {}, key.endsWith("count") || key.endsWith("faults") ? f.count(value) : `${f.bytes(value)}`)]));
  }));
  load();
}
