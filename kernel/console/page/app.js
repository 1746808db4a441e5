// The shell: which view is shown, whether the machine answers, colours, keys.
import { h, fill, text, dialog, failure } from "./dom.js";
import { live, json, read, whenUnauthorized } from "./api.js";
import { redraw } from "./chart.js";

const VIEWS = [
  ["overview", "Overview"], ["threads", "Threads"], ["syscalls", "System calls"], ["network", "Network"], ["files", "Files"],
  ["memory", "Memory"], ["profile", "Profile"], ["log", "Log"], ["store", "Store"], ["power", "Power"],
];

const find = id => document.getElementById(id);
const main = find("view"), banner = find("banner");
let leave = null, showing = 0;

/** Shows the view that the address names. A view's `show(main, cleanup)` gets a list to put its endings into. */
async function route() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const view = VIEWS.find(([key]) => key === name) ?? VIEWS[0];
  const mine = ++showing;
  leave?.();
  const endings = [];
  leave = () => { for (const end of endings) end(); };
  for (const link of find("nav").children) {
    if (link.dataset.view === view[0]) { link.setAttribute("aria-current", "page"); link.scrollIntoView({ block: "nearest", inline: "nearest" }); }
    else link.removeAttribute("aria-current");
  }
  document.title = `${view[1]} · ${find("title").textContent}`;
  fill(main, h("h1", {}, view[1]));
  main.dataset.view = view[0];
  try {
    const module = await import(`./view-${view[0]}.js`);
    if (mine === showing) await module.show(main, endings, rest.map(decodeURIComponent));
  } catch (error) {
    if (mine === showing) main.append(failure(error));
  }
}

function connection(state) {
  const link = find("link");
  link.dataset.state = state;
  text(link, { on: "live", off: "no answer", wait: "connecting" }[state]);
  if (state === "off") say("The machine does not answer. Trying again…");
  if (state === "on") { banner.hidden = true; identify(); }
}

function say(...content) { fill(banner, ...content); banner.hidden = false; }

/** Asks for the token again, without losing what is shown. */
function login() {
  if (banner.querySelector("form")) return;
  const token = h("input", { type: "password", autocomplete: "off", ariaLabel: "Token", placeholder: "token", required: true });
  const note = h("span");
  const form = h("form", { class: "row", onsubmit: async event => {
    event.preventDefault();
    try { await json("POST", "/api/login", { token: token.value }); banner.hidden = true; fill(banner); live.start(); route(); }
    catch (error) { text(note, error.message); }
  } }, "This session has ended. Open the link that `ops console` prints, or give the token:", token, h("button", { type: "submit" }, "Log in"), note);
  say(form);
}

async function identify() {
  const value = async path => { try { return (await read(path)).value; } catch { return undefined; } };
  const [host, program, version] = await Promise.all([value("/net/hostname"), value("/manifest/program"), value("/build/version")]);
  text(find("title"), host || "nanos");
  text(find("where"), [program, version && `nanos ${version}`].filter(Boolean).join(" · "));
}

function theme(next) {
  const names = { auto: "Auto", dark: "Dark", light: "Light" };
  const now = next ?? stored("theme") ?? "auto";
  if (now === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = now;
  text(find("theme"), names[now]);
  if (next) try { localStorage.setItem("theme", next); } catch { /* a private window keeps nothing */ }
  redraw();
  return now;
}
function stored(key) { try { return localStorage.getItem(key); } catch { return null; } }

function help() {
  dialog("Keys", h("dl", { class: "facts" }, ...VIEWS.flatMap(([, label], n) => [h("dt", {}, h("kbd", {}, String((n + 1) % 10))), h("dd", {}, label)]),
    h("dt", {}, h("kbd", {}, "/")), h("dd", {}, "search or filter in this view"), h("dt", {}, h("kbd", {}, "?")), h("dd", {}, "this page"),
    h("dt", {}, "arrows"), h("dd", {}, "in a flame graph: caller, callee, neighbours; Enter zooms, Escape goes back out")));
}

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || document.querySelector("dialog[open]")) return;
  if (/^[0-9]$/.test(event.key)) { location.hash = `#/${VIEWS[(Number(event.key) + 9) % 10][0]}`; }
  else if (event.key === "/") { const field = main.querySelector("input[type=search]"); if (field) { event.preventDefault(); field.focus(); } }
  else if (event.key === "?") help();
});

find("nav").append(...VIEWS.map(([key, label]) => h("a", { href: `#/${key}`, "data-view": key }, label)));
find("help").onclick = help;
find("theme").onclick = () => { const order = ["auto", "dark", "light"]; theme(order[(order.indexOf(theme()) + 1) % 3]); };
theme();
matchMedia("(prefers-color-scheme: light)").addEventListener("change", redraw);
whenUnauthorized(login);
addEventListener("hashchange", () => { route(); main.focus({ preventScroll: true }); });
live.onState(connection);
live.start();
route();
