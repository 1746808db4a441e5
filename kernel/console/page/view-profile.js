// Profile: samples all CPUs for a while and shows a flame graph.
import { h, card, field, fill, failure, text } from "./dom.js";
import { plain } from "./api.js";
import { Flame, parse } from "./flame.js";

// The last profile stays when one looks at another view meanwhile.
let last = null;

export function show(main, endings) {
  const seconds = h("input", { type: "number", class: "short", min: 1, max: 60, value: 5 });
  const hz = h("input", { type: "number", class: "short", min: 1, max: 1000, value: 99 });
  const flame = new Flame();
  const search = h("input", { type: "search", class: "wide", placeholder: "search for a function", ariaLabel: "Search", disabled: true, oninput: () => flame.search(search.value) });
  const note = h("span", { class: "dim", role: "status" });
  const result = h("div");
  const button = h("button", { type: "submit", class: "primary" }, "Sample");
  const save = h("span", { class: "row" });
  let stop = null;
  const present = folded => {
    const root = parse(folded);
    if (!root.value) { fill(result, h("p", { class: "empty" }, "No sample: every CPU was idle.")); return; }
    flame.set(root);
    fill(result, flame.element, flame.status);
    search.disabled = false;
    const url = URL.createObjectURL(new Blob([folded], { type: "text/plain" }));
    fill(save, h("a", { class: "button", href: url, download: "profile.folded" }, "Save folded stacks"));
  };
  const run = async () => {
    if (stop) { stop.abort(); return; }
    stop = new AbortController();
    text(button, "Stop");
    const end = Date.now() + seconds.value * 1000;
    const timer = setInterval(() => text(note, `sampling, ${Math.max(0, Math.ceil((end - Date.now()) / 1000))} s left`), 250);
    try { last = await plain(`/api/profile?seconds=${seconds.value}&hz=${hz.value}&format=folded`, stop.signal); present(last); text(note, ""); }
    catch (error) { text(note, ""); if (error.name !== "AbortError") fill(result, failure(error)); }
    clearInterval(timer);
    stop = null;
    text(button, "Sample");
  };
  endings.push(() => stop?.abort());
  main.append(card(null, h("form", { class: "row end", onsubmit: event => { event.preventDefault(); run(); } },
    field("Seconds", seconds), field("Samples each second", hz), button,
    h("a", { class: "button", href: "/api/profile?seconds=5&format=pprof", download: "profile.pb" }, "Save 5 s as pprof"), save, note)),
    card("Flame graph", h("div", { class: "row" }, search, h("span", { class: "dim" }, "callers on top; blue is the kernel")), result));
  if (last) present(last);
  else fill(result, h("p", { class: "empty" }, "Sample to see where the time goes."));
}
