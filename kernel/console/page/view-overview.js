// The machine at a glance: CPU by core, memory by use, network, disk, system calls.
import { h, card, text } from "./dom.js";
import { live, nest, Rates } from "./api.js";
import { Chart, Stack } from "./chart.js";
import * as f from "./format.js";

const MEMORY = ["program", "page_cache", "kernel_heap", "page_tables", "other", "free"];

export function show(main, endings) {
  const rates = new Rates();
  const cpu = new Chart("CPU by core", { show: f.percent, top: 1 });
  const memory = new Stack("Memory by use", f.bytes);
  const memoryLine = new Chart("Memory in use", { show: f.bytes, stacked: true, legend: false });
  const net = new Chart("Network", { show: f.bytesPerSecond });
  const disk = new Chart("Disk", { show: f.bytesPerSecond });
  const calls = new Chart("System calls", { show: f.perSecond });
  const now = { cpu: big(), memory: big(), net: big(), disk: big(), calls: big() };
  const facts = h("dl", { class: "facts" });
  main.append(h("div", { class: "grid" },
    card("CPU by core", now.cpu, cpu.element), card("Memory", now.memory, memory.element, memoryLine.element),
    card("Network", now.net, net.element), card("Disk", now.disk, disk.element),
    card("System calls", now.calls, calls.element), card("Machine", facts)));

  endings.push(live.watch("/cpu", { depth: 2 }, (values, { time_ms }) => {
    const moment = {};
    let sum = 0, cores = 0;
    for (const [name, core] of Object.entries(nest(values, "/cpu"))) {
      if (core === null || typeof core !== "object" || core.idle_ns === undefined) continue;
      const idle = rates.of(`cpu${name}`, core.idle_ns, time_ms) / 1e9;
      const busy = Math.min(1, Math.max(0, 1 - idle));
      moment[`cpu ${name}`] = busy;
      sum += busy; cores += 1;
    }
    cpu.push(moment);
    text(now.cpu, f.percent(sum / cores));
  }));
  endings.push(live.watch("/memory", { depth: 2 }, values => {
    const all = nest(values, "/memory");
    const parts = {};
    let known = all.free ?? 0;
    for (const name of MEMORY) if (Number.isFinite(all[name]) && name !== "free") { parts[name.replaceAll("_", " ")] = all[name]; known += all[name]; }
    if (all.total > known) parts.other = all.total - known;
    memoryLine.push(parts);
    memory.set({ ...parts, free: all.free ?? 0 });
    text(now.memory, `${f.bytes(all.total - all.free)} of ${f.bytes(all.total)}`);
  }));
  endings.push(live.watch("/net/interfaces", { depth: 2 }, (values, { time_ms }) => {
    let received = 0, sent = 0;
    for (const [name, card] of Object.entries(nest(values, "/net/interfaces"))) {
      if (name === "lo") continue;
      received += card.rx_bytes ?? 0; sent += card.tx_bytes ?? 0;
    }
    const moment = { received: rates.of("rx", received, time_ms), sent: rates.of("tx", sent, time_ms) };
    net.push(moment);
    text(now.net, `↓ ${f.bytesPerSecond(moment.received)}  ↑ ${f.bytesPerSecond(moment.sent)}`);
  }));
  endings.push(live.watch("/devices", { depth: 3 }, (values, { time_ms }) => {
    let reads = 0, writes = 0;
    for (const [path, value] of values) {
      if (path.endsWith("/read_bytes")) reads += value;
      if (path.endsWith("/written_bytes")) writes += value;
    }
    const moment = { read: rates.of("dr", reads, time_ms), written: rates.of("dw", writes, time_ms) };
    disk.push(moment);
    text(now.disk, `read ${f.bytesPerSecond(moment.read)}, written ${f.bytesPerSecond(moment.written)}`);
  }));
  endings.push(live.watch("/syscalls", { depth: 1 }, (values, { time_ms }) => {
    const moment = { calls: rates.of("calls", values.get("/syscalls/total"), time_ms), errors: rates.of("errors", values.get("/syscalls/errors"), time_ms) };
    if (!Number.isFinite(values.get("/syscalls/errors"))) delete moment.errors;
    calls.push(moment);
    text(now.calls, f.perSecond(moment.calls));
  }));

  const fact = (label, path, format = String) => {
    const place = h("dd", {}, "–");
    facts.append(h("dt", {}, label), place);
    return [path, value => text(place, value === null || value === undefined ? "–" : format(value))];
  };
  const watched = new Map([
    fact("Program", "/manifest/program"), fact("Up for", "/time/uptime", f.duration), fact("Time", "/time/now", value => value.replace(/\..*/, "").replace("T", " ") + " UTC"),
    fact("Clock", "/time/clock_source"), fact("Threads", "/threads/count"), fact("Kernel", "/build/version"),
  ]);
  for (const [path, tell] of watched) {
    endings.push(live.watch(path, { depth: 0 }, (values, message) => tell(message.error ? null : values.get(path))));
  }
}

const big = () => h("p", { class: "big" }, "–");
