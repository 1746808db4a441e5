// Network: interfaces, connections, drops, and captures.
import { h, card, field, fill, Table, text } from "./dom.js";
import { live, nest, Rates } from "./api.js";
import { Chart } from "./chart.js";
import * as f from "./format.js";

/** Bytes; of a listener, connections: those that wait, and how many may. */
const queue = (row, n = 0) => row.state === "listen" ? f.count(n) : f.bytes(n);

export function show(main, endings) {
  const rates = new Rates();
  const cards = new Map();
  const grid = h("div", { class: "grid" });
  const pick = h("select", { name: "interface" });
  const connections = new Table("Connections", [
    { key: "protocol", title: "Protocol" }, { key: "state", title: "State" }, { key: "local", title: "Local" }, { key: "remote", title: "Remote" },
    { key: "rx_queue", title: "In queue", num: true, show: row => queue(row, row.rx_queue) },
    { key: "tx_queue", title: "Out queue", num: true, show: row => queue(row, row.tx_queue) },
    { key: "rtt", title: "Round trip", num: true, sort: row => row.rtt ?? -1, show: row => row.rtt === undefined ? "" : f.duration(row.rtt) },
    { key: "cwnd", title: "cwnd", num: true, show: row => row.cwnd ?? "" },
    { key: "retrans", title: "Sent again", num: true, show: row => row.retrans ?? "" },
  ], { sort: "state", key: row => row.id, empty: "No connection." });
  const search = h("input", { type: "search", class: "wide", placeholder: "filter by address, state, protocol", ariaLabel: "Filter connections", oninput: () => render() });
  const drops = new Table("Dropped, by reason", [{ key: "reason", title: "Reason", wrap: true }, { key: "count", title: "Packets", num: true, show: row => f.count(row.count) }, { key: "rate", title: "Rate", num: true, show: row => f.perSecond(row.rate) }],
    { sort: "count", descending: true, key: row => row.reason, empty: "Nothing was dropped." });
  const facts = h("dl", { class: "facts" });
  let rows = [];
  const render = () => {
    const word = search.value.toLowerCase();
    connections.show(word ? rows.filter(row => `${row.protocol} ${row.state} ${row.local} ${row.remote}`.toLowerCase().includes(word)) : rows);
  };
  main.append(grid, card("Connections", h("div", { class: "row" }, search), connections.element),
    h("div", { class: "grid" }, card("Drops", drops.element), card("Routes and neighbours", facts), capture(pick)));

  endings.push(live.watch("/net/interfaces", { depth: 2 }, (values, { time_ms }) => {
    for (const [name, face] of Object.entries(nest(values, "/net/interfaces"))) {
      let shown = cards.get(name);
      if (!shown) {
        shown = { chart: new Chart(`Traffic of ${name}`, { show: f.bytesPerSecond }), facts: h("dl", { class: "facts" }) };
        cards.set(name, shown);
        grid.append(card(name, shown.chart.element, shown.facts));
        pick.append(h("option", { value: name }, name));
      }
      shown.chart.push({ received: rates.of(`${name}r`, face.rx_bytes, time_ms), sent: rates.of(`${name}s`, face.tx_bytes, time_ms) });
      const list = value => Array.isArray(value) ? value.map(item => typeof item === "object" ? JSON.stringify(item) : item).join(", ") : value;
      fill(shown.facts, ...Object.entries(face).filter(([, value]) => value !== "" && value !== null).flatMap(([key, value]) =>
        [h("dt", {}, key.replaceAll("_", " ")), h("dd", {}, key.endsWith("bytes") ? f.bytes(value) : String(list(value)))]));
    }
  }));
  endings.push(live.watch("/net/connections", { depth: 2 }, values => {
    rows = Object.entries(nest(values, "/net/connections")).map(([id, connection]) => {
      const info = connection.info ?? {};
      return { id, ...connection, rtt: info.rtt_us !== undefined ? info.rtt_us * 1000 : info.rtt_ns, cwnd: info.snd_cwnd ?? info.cwnd, retrans: info.total_retrans };
    });
    render();
  }));
  endings.push(live.watch("/net/drops", { depth: 2 }, (values, { time_ms }) => {
    drops.show([...values].filter(([, count]) => count > 0).map(([path, count]) => {
      const reason = path.slice("/net/drops/".length).replaceAll("_", " ");
      return { reason, count, rate: rates.of(path, count, time_ms) };
    }));
  }));
  const lists = new Map();
  for (const name of ["routes", "neighbours", "name_servers"]) {
    endings.push(live.watch(`/net/${name}`, { depth: 2, period: 3000 }, (values, message) => {
      if (message.error) return;
      const whole = values.get(`/net/${name}`);
      lists.set(name, whole ?? Object.values(nest(values, `/net/${name}`)));
      fill(facts, ...[...lists].flatMap(([name, list]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, ...(list?.length ? list.map(item => h("div", {}, words(item))) : ["none"]))]));
    }));
  }
}

const words = item => typeof item === "object" && item !== null ? Object.entries(item).map(([key, value]) => `${key} ${value}`).join(", ") : String(item);

function capture(pick) {
  const filter = h("input", { type: "text", class: "wide", name: "filter", placeholder: "tcp and port 80" });
  const seconds = h("input", { type: "number", class: "short", min: 1, max: 3600, value: 10 });
  const note = h("p", { class: "dim", role: "status" });
  return card("Capture", h("form", { class: "row end", onsubmit: event => {
    event.preventDefault();
    const query = new URLSearchParams({ interface: pick.value, seconds: seconds.value });
    if (filter.value) query.set("filter", filter.value);
    h("a", { href: `/api/capture?${query}`, download: `${pick.value}.pcapng` }).click();
    text(note, "The browser is saving the capture; it ends after the time given. Open it with Wireshark.");
  } }, field("Interface", pick), field("Filter", filter), field("Seconds", seconds), h("button", { type: "submit", class: "primary" }, "Capture")), note);
}
