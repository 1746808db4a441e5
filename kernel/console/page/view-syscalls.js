// System calls: rates, errors and latencies of each, and a live trace.
import { h, card, field, fill, Table, failure, text } from "./dom.js";
import { lines, live, nest, Rates } from "./api.js";
import { bars } from "./chart.js";
import { traceLine } from "./trace.js";
import * as f from "./format.js";

const KEEP_LINES = 2000;

export function show(main, endings) {
  const rates = new Rates();
  const latency = h("div", { ariaLive: "off" }, h("p", { class: "empty" }, "Choose a call to see how long it takes."));
  let chosen = null, rows = [];
  const table = new Table("Calls", [
    { key: "name", title: "Call" },
    { key: "rate", title: "Rate", num: true, show: row => f.perSecond(row.rate) },
    { key: "count", title: "Calls", num: true, show: row => f.count(row.count) },
    { key: "errors", title: "Errors", num: true, show: row => f.count(row.errors) },
    { key: "mean", title: "Mean", num: true, show: row => f.duration(row.mean) },
    { key: "time_ns", title: "Time", num: true, show: row => f.duration(row.time_ns) },
  ], { sort: "rate", descending: true, key: row => row.name, pick: row => { chosen = row.name; histogram(); }, empty: "No call yet." });
  const refused = h("p", { class: "dim" });
  const histogram = () => {
    for (const [name, { element }] of table.rows) element.setAttribute("aria-selected", String(name === chosen));
    const row = rows.find(row => row.name === chosen);
    if (!row) return;
    const pairs = Object.entries(row.histogram ?? {}).map(([bound, count]) => [Number(bound), count]).sort((a, b) => a[0] - b[0]);
    const last = pairs.findLastIndex(([, count]) => count > 0), first = pairs.findIndex(([, count]) => count > 0);
    fill(latency, h("h3", {}, `${row.name}: ${f.count(row.count)} calls, mean ${f.duration(row.mean)}`),
      first < 0 ? h("p", { class: "empty" }, "Not measured yet.") : bars(pairs.slice(first, last + 1).map(([bound, count]) => [`< ${f.duration(bound)}`, count]), `Latency of ${row.name}`));
  };
  main.append(h("div", { class: "grid" }, card("Calls", table.element, refused), card("Latency", latency)), trace(endings));
  endings.push(live.watch("/syscalls", { depth: 2 }, (values, { time_ms }) => {
    const all = nest(values, "/syscalls");
    rows = [];
    for (const [name, call] of Object.entries(all)) {
      if (call === null || typeof call !== "object" || !call.count) continue;
      rows.push({ name, ...call, rate: rates.of(name, call.count, time_ms), mean: call.time_ns / call.count });
    }
    table.show(rows);
    histogram();
    const names = Object.entries(all.refused ?? {});
    text(refused, names.length ? `Refused: ${names.map(([name, count]) => `${name} (${count})`).join(", ")}` : "Nothing was refused as unknown.");
  }));
}

function trace(endings) {
  const input = (name, placeholder, type = "text") => h("input", { type, name, placeholder, class: "short", min: 0 });
  const inputs = { name: input("name", "read,%network"), thread: input("thread", "id", "number"), path: input("path", "/etc"), errno: input("errno", "ENOENT"), min_us: input("min_us", "0", "number") };
  const out = h("div", { class: "lines trace", tabIndex: 0, role: "log", ariaLabel: "Live trace", ariaLive: "off" });
  const note = h("span", { class: "dim", role: "status" });
  let stop = null, seen = 0, dropped = 0;
  const button = h("button", { type: "submit", class: "primary" }, "Start");
  const run = async () => {
    if (stop) { stop.abort(); return; }
    stop = new AbortController();
    text(button, "Stop"); out.replaceChildren(); seen = dropped = 0;
    const query = new URLSearchParams(Object.entries(inputs).filter(([, field]) => field.value).map(([name, field]) => [name, field.value]));
    try {
      let waiting = [];
      const flush = () => {
        if (!waiting.length) return;
        const bottom = out.scrollHeight - out.scrollTop - out.clientHeight < 30;
        out.append(...waiting.slice(-KEEP_LINES)); waiting = [];
        while (out.childElementCount > KEEP_LINES) out.firstChild.remove();
        if (bottom) out.scrollTop = out.scrollHeight;
        text(note, `${seen} calls${dropped ? `, ${dropped} dropped` : ""}`);
      };
      const timer = setInterval(flush, 150);
      try {
        for await (const event of lines(`/api/trace?${query}`, stop.signal)) {
          if (event.dropped) { dropped += event.dropped; continue; }
          seen += 1;
          waiting.push(h("div", { class: event.errno ? "bad" : "" }, h("span", { class: "t" }, `${f.stamp(event.time_ns)} `), traceLine(event)));
          if (waiting.length > KEEP_LINES) waiting.shift();
        }
      } finally { clearInterval(timer); flush(); }
    } catch (error) { if (error.name !== "AbortError") out.append(failure(error)); }
    stop = null;
    text(button, "Start");
  };
  endings.push(() => stop?.abort());
  return card("Live trace",
    h("form", { class: "row end", onsubmit: event => { event.preventDefault(); run(); } },
      field("Calls", inputs.name), field("Thread", inputs.thread), field("Path contains", inputs.path), field("Error", inputs.errno), field("At least µs", inputs.min_us), button,
      h("button", { type: "button", onclick: () => out.replaceChildren() }, "Clear"), note), out);
}
