// Talking to the machine: requests, streams of lines, and one WebSocket for everything that is watched.

/** An answer that says no. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `The machine answered ${status}.`);
    this.status = status;
    this.code = body?.error?.code;
  }
}

let onUnauthorized = () => {};
/** Sets what happens when the session has ended. */
export function whenUnauthorized(run) { onUnauthorized = run; }

async function request(method, path, body, signal) {
  const answer = await fetch(path, {
    method, signal, cache: "no-store", credentials: "same-origin",
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.ok) return answer;
  if (answer.status === 401) onUnauthorized();
  throw new ApiError(answer.status, await answer.json().catch(() => null));
}

/** Asks and reads JSON. */
export async function json(method, path, body) {
  const answer = await request(method, path, body);
  return answer.status === 204 || answer.status === 202 ? null : answer.json();
}

/** Asks and reads text, telling `progress` how many bytes have come. */
export async function plain(path, signal) { return (await request("GET", path, undefined, signal)).text(); }

/** Gives each object of an NDJSON stream until it ends or `signal` aborts. */
export async function* lines(path, signal) {
  const answer = await request("GET", path, undefined, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const part of parts) if (part) yield JSON.parse(part);
    }
    if (rest.trim()) yield JSON.parse(rest);
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** `/api/store` for a path of the store. Paths come from the machine already encoded segment by segment. */
export const storeUrl = (path, depth) => `/api/store${path === "/" ? "" : path}${depth === undefined ? "" : `?depth=${depth}`}`;
export const read = (path, depth) => json("GET", storeUrl(path, depth));
export const write = (path, value) => json("PUT", storeUrl(path), { value });

/** The flat values of a subscription as nested objects below `prefix`. */
export function nest(values, prefix) {
  const root = {};
  for (const [path, value] of values) {
    if (!path.startsWith(prefix)) continue;
    const parts = path.slice(prefix.length).split("/").filter(Boolean).map(part => { try { return decodeURIComponent(part); } catch { return part; } });
    let place = root;
    for (const part of parts.slice(0, -1)) place = place[part] ??= Object.create(null);
    if (parts.length) place[parts.at(-1)] = value;
  }
  return root;
}

/** The subscription that shows that the machine lives, and how many milliseconds without any message are too many. */
const HEARTBEAT = 0, SILENCE = 10000;

/** One WebSocket that heals itself and asks again for everything that was watched. */
class Live {
  #socket = null;
  #subscriptions = new Map();
  #next = 1;
  #wait = 500;
  #timer = 0;
  #listeners = new Set();
  #heard = 0;
  state = "wait";

  constructor() {
    // A machine that restarted or hangs says no goodbye: silence tells.
    setInterval(() => {
      if (this.state !== "on" || performance.now() - this.#heard < SILENCE) return;
      const socket = this.#socket;
      socket.onclose?.();
      socket.close();
    }, 1000);
  }

  /** Calls `tell(state)` with "on", "off" or "wait" at each change. */
  onState(tell) { this.#listeners.add(tell); tell(this.state); }

  start() {
    clearTimeout(this.#timer);
    this.#socket?.close();
    const socket = this.#socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/watch`);
    socket.onopen = () => {
      this.#wait = 500;
      this.#heard = performance.now();
      this.#set("on");
      socket.send(JSON.stringify({ op: "subscribe", id: HEARTBEAT, path: "/time/uptime", depth: 0, period_ms: 2000 }));
      for (const [id, subscription] of this.#subscriptions) this.#send(id, subscription);
    };
    socket.onmessage = event => { this.#heard = performance.now(); this.#take(JSON.parse(event.data)); };
    socket.onclose = () => {
      if (socket !== this.#socket) return;
      socket.onclose = null;
      this.#set("off");
      this.#timer = setTimeout(() => this.start(), this.#wait);
      this.#wait = Math.min(this.#wait * 2, 8000);
      // Only an ordinary request tells a machine that is away from a session that has ended.
      fetch("/healthz", { cache: "no-store" }).then(answer => { if (answer.status === 401) onUnauthorized(); }, () => {});
    };
  }

  /** Watches `path`; `tell(values, message)` gets a Map of all current values. Gives a function that ends it. */
  watch(path, { depth = 1, period = 1000, onChange = false }, tell) {
    const id = this.#next++;
    const subscription = { path, depth, period, onChange, tell, values: new Map() };
    this.#subscriptions.set(id, subscription);
    if (this.state === "on") this.#send(id, subscription);
    return () => {
      this.#subscriptions.delete(id);
      if (this.state === "on") this.#socket.send(JSON.stringify({ op: "unsubscribe", id }));
    };
  }

  #send(id, { path, depth, period, onChange }) {
    this.#socket.send(JSON.stringify(onChange ? { op: "subscribe", id, path, depth, on: "change" } : { op: "subscribe", id, path, depth, period_ms: period }));
  }

  #take(message) {
    const subscription = this.#subscriptions.get(message.id);
    if (!subscription) return;
    if (message.error) { subscription.tell(subscription.values, message); return; }
    if (message.full) subscription.values.clear();
    for (const [path, value] of Object.entries(message.values ?? {})) subscription.values.set(path, value);
    for (const gone of message.gone ?? []) {
      subscription.values.delete(gone);
      for (const path of subscription.values.keys()) if (path.startsWith(`${gone}/`)) subscription.values.delete(path);
    }
    subscription.tell(subscription.values, message);
  }

  #set(state) {
    if (state === this.state) return;
    this.state = state;
    for (const tell of this.#listeners) tell(state);
  }
}

export const live = new Live();

/** Turns a counter's values into rates: `rate(name, value, time_ms)` is per second, or NaN at first. */
export class Rates {
  #last = new Map();
  of(name, value, time) {
    const last = this.#last.get(name);
    this.#last.set(name, { value, time });
    if (!last || time <= last.time || value < last.value) return NaN;
    return (value - last.value) * 1000 / (time - last.time);
  }
}
