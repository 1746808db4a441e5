// Power: ends or restarts the machine, after asking.
import { h, card, dialog, failure, text } from "./dom.js";
import { json } from "./api.js";

export function show(main) {
  const note = h("p", { role: "status" });
  const ask = async (action, title, words) => {
    if (await dialog(title, h("p", {}, words), [["Cancel", "close", ""], [title, action, "danger"]]) !== action) return;
    try { await json("POST", "/api/power", { action }); text(note, action === "reboot" ? "The machine restarts; this page comes back with it." : "The machine ends."); }
    catch (error) { note.replaceChildren(failure(error)); }
  };
  main.append(card(null,
    h("p", {}, "The program gets SIGTERM first and may finish what it does; files are written back before the machine ends."),
    h("div", { class: "row" },
      h("button", { type: "button", class: "danger", onclick: () => ask("shutdown", "Shut down", "The program ends and the machine with it.") }, "Shut down…"),
      h("button", { type: "button", onclick: () => ask("reboot", "Restart", "The program ends and is started anew.") }, "Restart…")), note));
}
