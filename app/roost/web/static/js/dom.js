// Elements, made and brought up to date; text is only ever text.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// Makes an element; attributes that are undefined, null or false are left out.
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// Makes `old` like `fresh` and keeps what is alike: focus, scrolling and selection outlive an update.
export function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return fresh;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return old;
  }
  for (const { name } of [...old.attributes]) {
    if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old instanceof HTMLSelectElement || old instanceof HTMLInputElement || old instanceof HTMLTextAreaElement) {
    if (old instanceof HTMLSelectElement) morphChildren(old, fresh);
    return old; // what somebody chose or typed stays
  }
  morphChildren(old, fresh);
  return old;
}

function morphChildren(old, fresh) {
  const before = [...old.childNodes];
  const after = [...fresh.childNodes];
  after.forEach((node, index) => (index < before.length ? morph(before[index], node) : old.append(node)));
  before.slice(after.length).forEach((node) => node.remove());
}

// Shows `children` in `node`, keeping what is alike.
export function show(node, ...children) {
  morphChildren(node, fill(node.cloneNode(false), {}, children));
}

export const number = (value, digits = 0) =>
  Number.isFinite(value)
    ? value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits })
    : "–";

// Large numbers in few signs: 1,234 and 12.3 K.
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size < 10_000) return value.toLocaleString("en", { maximumFractionDigits: size >= 100 ? 0 : size >= 1 ? 1 : 3 });
  return value.toLocaleString("en", { notation: "compact", maximumFractionDigits: 1 });
}

export function seconds(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  if (value < 1) return `${number(value * 1000)} ms`;
  if (value < 60) return `${number(value, 1)} s`;
  if (value < 3600) return `${number(value / 60, 1)} min`;
  return value < 172_800 ? `${number(value / 3600, 1)} h` : `${number(value / 86_400, 1)} days`;
}

export const gib = (bytes) => (bytes ? `${number(bytes / 2 ** 30, 1)} GiB` : "–");

export function ago(time) {
  const past = (Date.now() - new Date(time).getTime()) / 1000;
  return past < 2 ? "now" : `${seconds(Math.round(past))} ago`;
}

export const clock = (time) => new Date(time).toLocaleTimeString("en-GB");

export function pill(state, text = state) {
  return h("span", { class: "pill", "data-state": state }, text);
}

// A table whose columns are [title, cell(row), class?]; on a phone it scrolls by itself.
export function table(caption, columns, rows, empty) {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", { class: "visually-hidden" }, caption),
      h("thead", {}, h("tr", {}, columns.map(([title, , kind]) => h("th", { scope: "col", class: kind }, title)))),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            columns.map(([, cell, kind], index) =>
              index === 0 ? h("th", { scope: "row", class: kind }, cell(row)) : h("td", { class: kind }, cell(row)),
            ),
          ),
        ),
      ),
    ),
  );
}

export function heading(title, note, ...tools) {
  return h(
    "div",
    { class: "heading" },
    h("div", {}, h("h1", {}, title), note && h("p", { class: "note" }, note)),
    tools.length ? h("div", { class: "tools" }, tools) : null,
  );
}

export function figure(name, value, note) {
  return h(
    "div",
    { class: "figure" },
    h("span", { class: "name" }, name),
    h("strong", {}, value),
    note && h("span", { class: "note" }, note),
  );
}

// Tells a person something for a few seconds, screen readers too.
export function toast(text, kind = "good") {
  let place = document.getElementById("toasts");
  if (!place) {
    place = h("div", { id: "toasts", class: "toasts", role: "status", "aria-live": "polite" });
    document.body.append(place);
  }
  const made = h("p", { class: "toast", "data-kind": kind }, text);
  place.append(made);
  setTimeout(() => made.remove(), kind === "bad" ? 9000 : 4000);
}

// Asks before something that matters; resolves to true or false.
export function confirmed(title, text, action) {
  const dialog = h(
    "dialog",
    { class: "dialog", "aria-labelledby": "dialog-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "dialog-title" }, title),
      h("p", {}, text),
      h(
        "div",
        { class: "tools" },
        h("button", { class: "quiet", value: "no", autofocus: true }, "Cancel"),
        h("button", { class: "strong bad", value: "yes" }, action),
      ),
    ),
  );
  document.body.append(dialog);
  return new Promise((resolve) => {
    // The page's policy lets no form be sent, a dialog's neither: the buttons close it themselves.
    dialog.addEventListener("click", (event) => {
      if (!(event.target instanceof HTMLButtonElement)) return;
      event.preventDefault();
      dialog.close(event.target.value);
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    dialog.showModal();
  });
}
