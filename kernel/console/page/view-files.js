// Files: open descriptors, mounts, page cache.
import { h, card, fill, Table } from "./dom.js";
import { live, nest } from "./api.js";
import * as f from "./format.js";

export function show(main, endings) {
  const search = h("input", { type: "search", class: "wide", placeholder: "filter by path or kind", ariaLabel: "Filter descriptors", oninput: () => render() });
  const table = new Table("Open descriptors", [
    { key: "fd", title: "Number", num: true }, { key: "kind", title: "Kind" }, { key: "path", title: "Path", wrap: true },
    { key: "offset", title: "Offset", num: true, show: row => row.offset ?? "" }, { key: "flags", title: "Flags", show: row => row.flags ?? "" },
  ], { sort: "fd", key: row => row.fd, empty: "No descriptor matches." });
  const mounts = new Table("Mounts", [
    { key: "target", title: "At" }, { key: "type", title: "Type", show: row => row.type ?? row.kind ?? "" }, { key: "source", title: "Source" },
    { key: "total", title: "Size", num: true, show: row => row.total === undefined ? "" : f.bytes(row.total) },
    { key: "free", title: "Free", num: true, show: row => row.free === undefined ? "" : f.bytes(row.free) },
    { key: "options", title: "Options", show: row => row.options ?? "", wrap: true },
  ], { sort: "target", key: row => row.id, empty: "Nothing is mounted." });
  const cache = h("dl", { class: "facts" });
  main.append(h("div", { class: "grid" }, card("Mounts", mounts.element), card("Page cache", cache)), card("Open descriptors", h("div", { class: "row" }, search), table.element));
  let rows = [];
  const render = () => {
    const word = search.value.toLowerCase();
    table.show(word ? rows.filter(row => `${row.kind} ${row.path}`.toLowerCase().includes(word)) : rows);
  };
  endings.push(live.watch("/files/descriptors", { depth: 2 }, values => {
    rows = Object.entries(nest(values, "/files/descriptors")).filter(([, row]) => row && typeof row === "object").map(([fd, row]) => ({ fd: Number(fd), ...row }));
    render();
  }));
  endings.push(live.watch("/files/mounts", { depth: 2, period: 2000 }, values => {
    mounts.show(Object.entries(nest(values, "/files/mounts")).filter(([, row]) => row && typeof row === "object").map(([id, row]) => ({ id, ...row })));
  }));
  endings.push(live.watch("/files/page_cache", { depth: 1 }, values => {
    fill(cache, ...Object.entries(nest(values, "/files/page_cache")).flatMap(([key, value]) =>
      [h("dt", {}, key.replaceAll("_", " ")), h("dd", {}, /bytes|size/.test(key) ? f.bytes(value) : f.count(value))]));
  }));
}
