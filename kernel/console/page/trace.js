// One traced call in strace's format.
import { duration } from "./format.js";

export function traceLine(event) {
  const args = event.args.map(({ kind, value }) => kind === "path" || kind === "string" ? `"${value}"` : value).join(", ");
  if (event.unfinished) return `[${event.tid} ${event.thread}] ${event.name}(${args} <unfinished ...>`;
  const result = event.result === null ? "?" : event.errno ? `-1 ${event.errno}` : event.result > 0xffffffff ? `0x${event.result.toString(16)}` : String(event.result);
  return `[${event.tid} ${event.thread}] ${event.name}(${args}) = ${result} <${duration(event.duration_ns)}>`;
}
