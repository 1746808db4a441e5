// Making elements, tables and dialogs. Text is always set as text: nothing from the machine becomes markup.

/** An element with properties, `on…` listeners and children. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "style") for (const [k, v] of Object.entries(value)) element.style.setProperty(k, v);
    else if (name in element && name !== "list" && name !== "form") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

/** Replaces what is in `element`. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets text only where it differs, so that a screen reader and a selection are left in peace. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** A titled panel. */
export function card(title, ...children) {
  return h("section", { class: "card" }, title && h("h2", {}, title), ...children);
}

/** A labelled field of a form. */
export function field(label, input) {
  return h("label", { class: "field" }, label, input);
}

/**
 * A table whose rows are kept by key, so that a refresh moves no focus.
 * A column is {key, title, num, show(row), sort(row), wrap}.
 */
export class Table {
  constructor(caption, columns, { sort, descending = false, key, pick, empty = "Nothing here." } = {}) {
    this.columns = columns;
    this.sort = sort ?? columns[0].key;
    this.descending = descending;
    this.key = key;
    this.pick = pick;
    this.rows = new Map();
    this.heads = new Map(columns.map(column => [column.key, h("th", { scope: "col", class: column.num ? "num" : "" },
      h("button", { type: "button", onclick: () => this.sortBy(column) }, column.title))]));
    this.body = h("tbody");
    this.none = h("p", { class: "empty", hidden: true }, empty);
    this.element = h("div", { class: "scroll tall", tabIndex: 0, role: "region", ariaLabel: caption },
      h("table", {}, caption && h("caption", {}, caption), h("thead", {}, h("tr", {}, ...this.heads.values())), this.body), this.none);
    this.mark();
  }

  sortBy(column) {
    if (this.sort === column.key) this.descending = !this.descending;
    else { this.sort = column.key; this.descending = Boolean(column.num); }
    this.mark();
    this.show(this.data ?? []);
  }

  mark() {
    for (const [key, head] of this.heads) {
      if (key === this.sort) head.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  show(data) {
    this.data = data;
    const column = this.columns.find(column => column.key === this.sort);
    const value = column.sort ?? (row => row[column.key]);
    const sign = this.descending ? -1 : 1;
    const sorted = [...data].sort((a, b) => {
      const x = value(a) ?? "", y = value(b) ?? "";
      return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true }));
    });
    const gone = new Set(this.rows.keys());
    let before = this.body.firstChild;
    for (const row of sorted) {
      const key = String(this.key(row));
      gone.delete(key);
      let line = this.rows.get(key);
      if (!line) { line = this.line(key); this.rows.set(key, line); }
      line.row = row;
      this.columns.forEach((column, n) => {
        const shown = column.show ? column.show(row) : row[column.key];
        const cell = line.element.cells[n];
        if (shown instanceof Node) fill(cell, shown);
        else text(cell, shown === undefined || shown === null ? "" : String(shown));
      });
      if (line.element !== before) this.body.insertBefore(line.element, before);
      else before = before.nextSibling;
    }
    for (const key of gone) { this.rows.get(key).element.remove(); this.rows.delete(key); }
    this.none.hidden = sorted.length > 0;
  }

  line() {
    const line = {};
    const pick = this.pick && (() => this.pick(line.row));
    line.element = h("tr", pick ? { class: "pick", tabIndex: 0, onclick: pick, onkeydown: event => { if (event.key === "Enter" && event.target === line.element) pick(); } } : {},
      ...this.columns.map(column => h("td", { class: column.num ? "num" : column.wrap ? "wrap" : "" })));
    return line;
  }
}

/** Shows a dialog and gives what its closing button says. */
export function dialog(title, content, buttons = [["Close", "close", ""]]) {
  return new Promise(resolve => {
    const heading = h("h2", { id: "dialog-title" }, title);
    const box = h("dialog", { "aria-labelledby": "dialog-title" }, heading, content,
      h("form", { method: "dialog", class: "row" }, ...buttons.map(([label, value, style]) => h("button", { value, class: style }, label))));
    box.addEventListener("close", () => { box.remove(); resolve(box.returnValue); });
    box.addEventListener("click", event => { if (event.target === box) box.close("close"); });
    document.body.append(box);
    box.showModal();
  });
}

/** Says an error where the reader looks. */
export function failure(error) {
  return h("p", { class: "bad", role: "alert" }, error?.message ?? String(error));
}
