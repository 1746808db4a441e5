// The kernel's log: follows it, and sets what is written into it.
import { h, card, field, fill, failure, text } from "./dom.js";
import { lines, read, write } from "./api.js";
import { stamp } from "./format.js";

const LEVELS = ["error", "warn", "info", "debug", "trace"];
const KEEP = 5000;

export async function show(main, endings) {
  const shown = h("select", { onchange: () => filter() }, ...LEVELS.map(level => h("option", { value: level, selected: level === "trace" }, level)));
  // Which level holds now is not known before the machine has answered: until then there is nothing to change.
  const kept = h("select", { disabled: true }, ...LEVELS.map(level => h("option", { value: level }, level)));
  const search = h("input", { type: "search", class: "wide", placeholder: "filter", ariaLabel: "Filter", oninput: () => filter() });
  const follow = h("input", { type: "checkbox", checked: true, onchange: () => { if (follow.checked) out.scrollTop = out.scrollHeight; } });
  const out = h("div", { class: "lines", tabIndex: 0, role: "log", ariaLabel: "Log" });
  const note = h("span", { role: "status", class: "dim" });
  main.append(card(null, h("div", { class: "row end" }, field("Show at least", shown), field("The kernel writes", kept), search, h("label", { class: "check" }, follow, "follow"), note)), card(null, out));
  const visible = line => LEVELS.indexOf(line.dataset.level) <= LEVELS.indexOf(shown.value) && line.textContent.toLowerCase().includes(search.value.toLowerCase());
  const filter = () => { for (const line of out.children) line.hidden = !visible(line); };

  kept.onchange = async () => {
    const level = kept.value;
    try { await write("/log/level", level); text(note, `level is ${level}`); }
    catch (error) { fill(note, failure(error)); }
  };
  try { kept.value = (await read("/log/level")).value; kept.disabled = false; } catch (error) { fill(note, failure(error)); }

  const stop = new AbortController();
  endings.push(() => stop.abort());
  let since = 0;
  while (!stop.signal.aborted) {
    try {
      for await (const entry of lines(`/api/log?follow=1&level=trace&since=${since}`, stop.signal)) {
        if (entry.dropped) { out.append(h("div", { class: "dim" }, `… ${entry.dropped} lines lost`)); continue; }
        since = entry.seq + 1;
        const line = h("div", { "data-level": entry.level, class: { error: "bad", warn: "warn", debug: "dim", trace: "dim" }[entry.level] },
          h("span", { class: "t" }, `${stamp(entry.time_ns)} ${entry.level.padEnd(5)} ${entry.target ? `${entry.target}: ` : ""}`), entry.message);
        line.hidden = !visible(line);
        out.append(line);
        if (out.childElementCount > KEEP) out.firstChild.remove();
        if (follow.checked) out.scrollTop = out.scrollHeight;
      }
    } catch (error) { if (error.name !== "AbortError" && error.status) { out.append(failure(error)); return; } }
    // The stream has ended: the machine is away or a limit was reached. It goes on where it was.
    if (!stop.signal.aborted) await new Promise(resolve => setTimeout(resolve, 1500));
  }
}
