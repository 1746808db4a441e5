// Numbers as people read them.

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Bytes: "12.3 MiB". */
export function bytes(value) {
  if (!Number.isFinite(value)) return "–";
  let step = 0;
  while (Math.abs(value) >= 1024 && step < BINARY.length - 1) { value /= 1024; step += 1; }
  return `${step === 0 || Math.abs(value) >= 100 ? Math.round(value) : value.toFixed(1)} ${BINARY[step]}`;
}

/** A count with a unit prefix: "12.3 k". */
export function count(value) {
  if (!Number.isFinite(value)) return "–";
  for (const [limit, sign] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (Math.abs(value) >= limit) return `${(value / (sign === "k" ? 1e3 : limit)).toFixed(1)} ${sign}`;
  }
  return Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 1 : 0);
}

/** Nanoseconds: "1.25 ms". */
export function duration(ns) {
  if (!Number.isFinite(ns)) return "–";
  if (ns < 1e3) return `${Math.round(ns)} ns`;
  if (ns < 1e6) return `${(ns / 1e3).toPrecision(3)} µs`;
  if (ns < 1e9) return `${(ns / 1e6).toPrecision(3)} ms`;
  if (ns < 60e9) return `${(ns / 1e9).toPrecision(3)} s`;
  const seconds = Math.floor(ns / 1e9), two = n => String(n).padStart(2, "0");
  const days = Math.floor(seconds / 86400);
  return `${days ? `${days} d ` : ""}${Math.floor(seconds / 3600) % 24}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}

export const percent = share => Number.isFinite(share) ? `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %` : "–";
export const perSecond = value => `${count(value)}/s`;
export const bytesPerSecond = value => `${bytes(value)}/s`;

/** Nanoseconds since boot: "[   12.345678]". */
export const stamp = ns => `[${(ns / 1e9).toFixed(6).padStart(12)}]`;

/** A value of the store by its type and unit. */
export function byType(value, type, unit) {
  if (value === null || value === undefined) return "–";
  if (type === "size" || unit === "bytes") return `${bytes(value)}`;
  if (type === "duration" || unit === "ns") return duration(value);
  if (type === "float") return String(Math.round(value * 1e6) / 1e6) + (unit ? ` ${unit}` : "");
  if (typeof value === "object") return JSON.stringify(value);
  return String(value) + (unit ? ` ${unit}` : "");
}
