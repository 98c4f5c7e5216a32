// Markdown to elements. Nothing here makes markup of a text: HTML in an answer is shown as the text that it is.
// The common part of CommonMark (https://spec.commonmark.org) with GitHub's tables, strikethrough and task lists.

import { h } from "./dom.js";

const DEEPEST = 12; // levels of quotes, lists and emphasis; what lies deeper is plain text
const SAFE_LINK = /^(https?:\/\/|mailto:)/i;
const ESCAPABLE = /[!-/:-@[-`{-~]/;

const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?(?:\s+#+)?\s*$/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const QUOTE = /^ {0,3}>\s?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(\s+|$)(.*)$/;
const TABLE_LINE = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;

// Returns a fragment; an answer that is not complete yet is as good as any.
export function markdown(text) {
  const fragment = document.createDocumentFragment();
  fragment.append(...blocks(text.replace(/\r\n?/g, "\n").replace(/\0/g, "\uFFFD").split("\n"), 0));
  return fragment;
}

// --- Blocks ----------------------------------------------------------------------------------------------------

function blocks(lines, depth) {
  if (depth > DEEPEST) return [h("p", {}, lines.join("\n"))];
  const made = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    let found;
    if (!line.trim()) at += 1;
    else if ((found = FENCE.exec(line))) at = fence(lines, at, found, made);
    else if ((found = HEADING.exec(line))) {
      // The page has its own first and second level.
      made.push(h(`h${Math.min(6, found[1].length + 2)}`, {}, inline(found[2] ?? "", 0)));
      at += 1;
    } else if (RULE.test(line)) {
      made.push(h("hr"));
      at += 1;
    } else if (QUOTE.test(line)) {
      const inner = [];
      while (at < lines.length && lines[at].trim() && (QUOTE.test(lines[at]) || !startsBlock(lines[at]))) {
        inner.push(lines[at].replace(QUOTE, ""));
        at += 1;
      }
      made.push(h("blockquote", {}, blocks(inner, depth + 1)));
    } else if (ITEM.test(line)) at = list(lines, at, made, depth);
    else if (line.includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && TABLE_LINE.test(lines[at + 1])
      && cells(line).length === cells(lines[at + 1]).length) at = grid(lines, at, made);
    else {
      const inner = [];
      while (at < lines.length && lines[at].trim() && (!inner.length || !startsBlock(lines[at]))) {
        inner.push(lines[at].replace(/^\s+/, ""));
        at += 1;
      }
      made.push(h("p", {}, inline(inner.join("\n"), 0)));
    }
  }
  return made;
}

function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

function fence(lines, at, found, made) {
  const [, indent, marks, language] = found;
  const inner = [];
  const closing = new RegExp(`^ {0,3}${marks[0] === "`" ? "`" : "~"}{${marks.length},}\\s*$`);
  at += 1;
  while (at < lines.length && !closing.test(lines[at])) {
    inner.push(lines[at].startsWith(indent) ? lines[at].slice(indent.length) : lines[at]);
    at += 1;
  }
  made.push(
    h(
      "div",
      { class: "code" },
      h("div", { class: "code-bar" }, h("span", {}, language.slice(0, 30) || "text"),
        h("button", { type: "button", class: "quiet small", "data-act": "copy-code" }, "Copy")),
      h("pre", { tabindex: "0" }, h("code", {}, inner.join("\n"))),
    ),
  );
  return at + 1;
}

function list(lines, at, made, depth) {
  const first = ITEM.exec(lines[at]);
  const ordered = /\d/.test(first[2]);
  const kind = first[2].slice(-1);
  const items = [];
  let loose = false;
  while (at < lines.length) {
    const found = ITEM.exec(lines[at]);
    if (!found || found[2].slice(-1) !== kind || (RULE.test(lines[at]) && !ordered)) break;
    const width = found[1].length + found[2].length + Math.min(4, found[3].length || 1);
    const inner = [found[4]];
    at += 1;
    while (at < lines.length) {
      const line = lines[at];
      const indent = line.length - line.trimStart().length;
      if (!line.trim()) {
        const next = lines[at + 1];
        if (next === undefined || (next.length - next.trimStart().length < Math.min(width, 2) && !ITEM.test(next))) break;
        if (ITEM.test(next) && next.length - next.trimStart().length < 2) { loose = true; at += 1; break; }
        loose = true;
        inner.push("");
      } else if (indent >= Math.min(width, 2)) inner.push(line.slice(Math.min(indent, width)));
      else if (!startsBlock(line) && inner[inner.length - 1]?.trim()) inner.push(line);
      else break;
      at += 1;
    }
    items.push(inner);
  }
  const start = ordered ? Number.parseInt(first[2], 10) : 1;
  made.push(h(ordered ? "ol" : "ul", { start: start === 1 ? null : start }, items.map((inner) => item(inner, loose, depth))));
  return at;
}

function item(lines, loose, depth) {
  const task = /^\[([ xX])\]\s+(.*)$/.exec(lines[0] ?? "");
  const body = task ? [task[2], ...lines.slice(1)] : lines;
  const inner = blocks(body, depth + 1);
  const tight = loose ? inner : inner.flatMap((block) => (block.nodeName === "P" ? [...block.childNodes] : [block]));
  const box = task && h("input", { type: "checkbox", disabled: true, checked: task[1] !== " ",
    "aria-label": task[1] === " " ? "not done" : "done" });
  return h("li", { class: task ? "task" : null }, box, tight);
}

function cells(line) {
  const parts = [];
  let cell = "";
  const text = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === "\\" && text[at + 1] === "|") { cell += "|"; at += 1; }
    else if (text[at] === "|") { parts.push(cell.trim()); cell = ""; }
    else cell += text[at];
  }
  return [...parts, cell.trim()];
}

function grid(lines, at, made) {
  const sides = cells(lines[at + 1]).map((mark) => (/^:-+:$/.test(mark) ? "middle" : /-:$/.test(mark) ? "end" : null));
  const head = cells(lines[at]);
  const rows = [];
  at += 2;
  while (at < lines.length && lines[at].trim() && lines[at].includes("|")) {
    rows.push(cells(lines[at]));
    at += 1;
  }
  made.push(
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "table" },
      h("table", {},
        h("thead", {}, h("tr", {}, head.map((cell, n) => h("th", { scope: "col", class: sides[n] }, inline(cell, 0))))),
        h("tbody", {}, rows.map((row) =>
          h("tr", {}, head.map((_, n) => h("td", { class: sides[n] }, inline(row[n] ?? "", 0)))))))),
  );
  return at;
}

// --- Within a line ---------------------------------------------------------------------------------------------

function inline(text, depth) {
  const made = [];
  let plain = "";
  const flush = () => { if (plain) made.push(plain); plain = ""; };
  const add = (node) => { flush(); made.push(node); };
  let at = 0;
  while (at < text.length) {
    const sign = text[at];
    let end;
    if (sign === "\\" && at + 1 < text.length && ESCAPABLE.test(text[at + 1])) {
      plain += text[at + 1];
      at += 2;
    } else if (sign === "\n") {
      if (/ {2}$|\\$/.test(plain)) { plain = plain.replace(/ +$|\\$/, ""); add(h("br")); } else plain += "\n";
      at += 1;
    } else if (sign === "`" && (end = codeSpan(text, at))) {
      add(h("code", {}, end.text));
      at = end.at;
    } else if (depth < DEEPEST && (sign === "[" || (sign === "!" && text[at + 1] === "[")) && (end = link(text, at, depth))) {
      add(end.node);
      at = end.at;
    } else if (sign === "<" && (end = /^<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/i.exec(text.slice(at, at + 2010)))) {
      add(anchor(end[1], [end[1]]));
      at += end[0].length;
    } else if (sign === "h" && !/\w/.test(text[at - 1] ?? "") && (end = bareLink(text, at))) {
      add(anchor(end, [end]));
      at += end.length;
    } else if (depth < DEEPEST && (sign === "*" || sign === "_" || sign === "~") && (end = emphasis(text, at))) {
      add(h(end.tag, {}, inline(text.slice(end.from, end.to), depth + 1)));
      at = end.at;
    } else {
      plain += sign;
      at += 1;
    }
  }
  flush();
  return made;
}

function run(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

function codeSpan(text, at) {
  const length = run(text, at);
  let from = at + length;
  for (;;) {
    const found = text.indexOf("`", from);
    if (found < 0) return null;
    const size = run(text, found);
    if (size === length) {
      const inner = text.slice(at + length, found).replace(/\n/g, " ");
      const padded = /^ .* $/.test(inner) && inner.trim();
      return { text: padded ? inner.slice(1, -1) : inner, at: found + size };
    }
    from = found + size;
  }
}

function emphasis(text, at) {
  const sign = text[at];
  const size = Math.min(run(text, at), sign === "~" ? 2 : 3);
  if (sign === "~" && size < 2) return null;
  if (sign === "_" && /\w/.test(text[at - 1] ?? "")) return null;
  const mark = sign.repeat(size);
  const from = at + size;
  if (!text[from] || /\s/.test(text[from])) return null;
  let to = text.indexOf(mark, from + 1);
  while (to > 0) {
    const after = text[to + size] ?? "";
    const opens = sign !== "_" || !/\w/.test(after);
    if (!/\s/.test(text[to - 1]) && text[to - 1] !== "\\" && opens && (size > 1 || after !== sign) && text[to - 1] !== sign) {
      // Three marks are strong and emphasised: the outer one here, the inner one in what is inside.
      if (size === 3) return { tag: "strong", from: from - 1, to: to + 1, at: to + 3 };
      return { tag: sign === "~" ? "del" : size === 2 ? "strong" : "em", from, to, at: to + size };
    }
    to = text.indexOf(mark, to + 1);
  }
  return null;
}

function bareLink(text, at) {
  const found = /^https?:\/\/[^\s<>"'`]{1,2000}/i.exec(text.slice(at, at + 2010));
  if (!found) return null;
  let url = found[0].replace(/[.,;:!?*_~]+$/, "");
  while (url.endsWith(")") && url.split("(").length < url.split(")").length) url = url.slice(0, -1);
  return url;
}

// A link, or a picture: which is not fetched, so that no model can tell another server what was said. Both are links.
function link(text, at, depth) {
  const picture = text[at] === "!";
  const from = at + (picture ? 2 : 1);
  let level = 1;
  let to = from;
  for (; to < text.length && level > 0; to += 1) {
    if (text[to] === "\\") to += 1;
    else if (text[to] === "[") level += 1;
    else if (text[to] === "]") level -= 1;
  }
  if (level > 0 || text[to] !== "(") return null;
  const found = /^\(\s*(?:<([^<>\n]{0,2000})>|((?:[^\s()\\]|\\.|\([^\s()]{0,500}\)){0,2000}))(?:\s+(?:"[^"]{0,500}"|'[^']{0,500}'))?\s*\)/
    .exec(text.slice(to, to + 3100));
  if (!found) return null;
  const url = found[1] ?? found[2];
  const label = text.slice(from, to - 1);
  const inner = picture ? [`picture: ${label || url}`] : inline(label, depth + 1);
  return { node: SAFE_LINK.test(url) ? anchor(url, inner) : h("span", {}, inner), at: to + found[0].length };
}

function anchor(url, inner) {
  // A link inside of a link's words would be a lie about one of them.
  const words = inner.map((node) => (node.nodeName === "A" ? node.textContent : node));
  return h("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow ugc", referrerpolicy: "no-referrer" }, words);
}
