// Threads: what each does, how much CPU it takes, and its stacks.
import { h, card, Table, dialog, failure, text } from "./dom.js";
import { json, live, nest, Rates } from "./api.js";
import * as f from "./format.js";

export function show(main, endings) {
  const rates = new Rates();
  const search = h("input", { type: "search", class: "wide", placeholder: "filter by name or state", ariaLabel: "Filter", oninput: () => render() });
  const kernel = h("input", { type: "checkbox", onchange: () => render() });
  const total = h("span", { class: "dim" });
  const table = new Table("Threads", [
    { key: "tid", title: "Id", num: true },
    { key: "name", title: "Name" },
    { key: "state", title: "State" },
    { key: "busy", title: "CPU", num: true, show: row => f.percent(row.busy) },
    { key: "cpu_ns", title: "CPU time", num: true, show: row => f.duration(row.cpu_ns) },
    { key: "user_ns", title: "User", num: true, show: row => f.duration(row.user_ns) },
    { key: "system_ns", title: "System", num: true, show: row => f.duration(row.system_ns) },
    { key: "cpu", title: "On", num: true },
    { key: "syscall", title: "Call", show: row => row.syscall || "" },
    { key: "wait", title: "Waits for", show: row => row.wait || "", wrap: true },
    { key: "stack", title: "Stacks", show: row => row.button ??= h("button", { type: "button", class: "small", onclick: () => stacks(row) }, "show") },
  ], { sort: "busy", descending: true, key: row => row.tid, empty: "No thread matches." });
  main.append(card(null, h("div", { class: "row" }, search, h("label", { class: "check" }, kernel, "kernel threads"), total)), card(null, table.element));
  const buttons = new Map();
  let rows = [];
  const render = () => {
    const word = search.value.toLowerCase();
    const shown = rows.filter(row => (kernel.checked || !row.kernel) && (!word || `${row.name} ${row.state} ${row.wait} ${row.syscall}`.toLowerCase().includes(word)));
    table.show(shown);
    text(total, `${shown.length} of ${rows.length}`);
  };
  endings.push(live.watch("/threads", { depth: 2 }, (values, { time_ms }) => {
    rows = [];
    for (const [tid, thread] of Object.entries(nest(values, "/threads"))) {
      if (thread === null || typeof thread !== "object") continue;
      const button = buttons.get(tid);
      const row = { ...thread, tid: Number(tid), busy: rates.of(tid, thread.cpu_ns, time_ms) / 1e9, button };
      rows.push(row);
    }
    render();
    for (const row of rows) buttons.set(String(row.tid), row.button);
    const alive = new Set(rows.map(row => String(row.tid)));
    for (const tid of buttons.keys()) if (!alive.has(tid)) buttons.delete(tid);
  }));
}

/** A frame as text: address, symbol and offset, file. */
function frame(frame) {
  const place = frame.symbol ? `${frame.symbol}${frame.offset !== undefined && !frame.file ? `+0x${frame.offset.toString(16)}` : ""}` : "?";
  return `${frame.address}  ${place}${frame.file ? `  ${frame.file}` : ""}`;
}

async function stacks({ tid, name }) {
  const body = h("div");
  const load = async () => {
    try {
      const stack = await json("GET", `/api/threads/${tid}/stack`);
      body.replaceChildren(
        h("h3", {}, "Program"), h("pre", { tabIndex: 0 }, stack.program?.map(frame).join("\n") || "no frames"),
        h("h3", {}, "Kernel"), h("pre", { tabIndex: 0 }, stack.kernel?.map(frame).join("\n") || "not in the kernel"));
    } catch (error) { body.replaceChildren(failure(error)); }
  };
  await load();
  dialog(`Thread ${tid}, ${name}`, h("div", {}, h("button", { type: "button", onclick: load }, "Refresh"), body));
}
