// What an agent said and did, item by item, as elements.

import { h, number, pill, seconds, short } from "./dom.js";
import { markdown } from "./markdown.js";

const ARGUMENTS = 100; // characters of a call's arguments in its line
const TEXT = 4000; // characters of a result
const STATES = { ok: "ready", refused: "draining", cancelled: "draining" };

// Returns the element of an item of `Turns`; `live`: more of it may come.
export function drawItem(item, live) {
  switch (item.kind) {
    case "user":
      return h("article", { class: "message user", "aria-label": "You" }, h("p", { class: "as-typed" }, item.text),
        item.lost && h("p", { class: "note" }, "not answered"));
    case "answer":
      return h("article", { class: `message assistant${live ? " running" : ""}`, "aria-label": "Agent", "aria-busy": live ? "true" : null },
        h("div", { class: "prose" }, markdown(item.text)));
    case "thought":
      return h("details", { class: "thinking" }, h("summary", {}, "Thinking"), h("div", { class: "as-typed" }, item.text));
    case "tool":
      return drawTool(item);
    case "question":
      return drawQuestion(item);
    case "took":
      return h("p", { class: "note took" }, tookOf(item.values));
    default:
      return h("p", { class: item.kind === "error" ? "error" : "note event", role: item.kind === "error" ? "alert" : null }, item.text);
  }
}

const wordsOf = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const cut = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);

const ANSWERS = { yes: "Allow once", conversation: "Allow in this conversation", always: "Always allow", no: "Do not allow" };
const ENDS = {
  yes: "You allowed it.", conversation: "You allowed it in this conversation.", always: "You allowed it from now on.",
  no: "You did not allow it.", unanswered: "It was not answered, and so not called.", stopped: "It was stopped, and not called.",
};

function drawQuestion(item) {
  return h("section", { class: "question", "data-tool": item.tool, role: item.answer ? null : "alert" },
    h("p", { class: "as-typed" }, item.text),
    item.answer ? h("p", { class: "note" }, ENDS[item.answer] ?? item.answer)
      : h("div", { class: "answers" }, Object.entries(ANSWERS).map(([answer, text]) =>
        h("button", { class: answer === "no" ? "strong small" : "quiet small", type: "button", "data-answer": answer, "data-question": item.id }, text))));
}

function drawTool(item) {
  const { result } = item;
  const line = Object.entries(item.arguments ?? {}).map(([name, value]) => `${name}=${wordsOf(value)}`).join(" ").replace(/\s+/g, " ");
  const outcome = result?.outcome ?? (item.over ? "no result" : "running");
  const about = result ? [`${number(result.bytes)} bytes`, result.seconds ? seconds(result.seconds) : "", result.changed?.length ? `changed ${cut(result.changed.join(", "), ARGUMENTS)}` : ""] : [];
  return h("details", { class: "tool", "data-tool": item.tool },
    h("summary", {},
      h("span", { class: "call" }, h("strong", {}, item.tool), " ", h("code", {}, cut(line, ARGUMENTS))),
      pill(result ? STATES[outcome] ?? "down" : item.over ? "down" : "loading", outcome.replaceAll("_", " ")),
      h("span", { class: "note" }, about.filter(Boolean).join(" · "))),
    h("pre", { class: "as-typed" }, cut(JSON.stringify(item.arguments ?? {}, null, 2), TEXT)),
    result && h("pre", { class: "as-typed" }, cut(result.text, TEXT)));
}

function tookOf(values) {
  const roles = Object.entries(values.roles ?? {}).filter(([, use]) => use.model).map(([role, use]) =>
    `${role} ${use.model}: ${short(use.prompt_tokens)} in${use.cached_tokens ? ` (${short(use.cached_tokens)} cached)` : ""}, ${short(use.completion_tokens)} out`);
  return [
    values.delegation_mode,
    ...roles,
    values.tools_run && `${values.tools_run} ${values.tools_run === 1 ? "call" : "calls"}`,
    values.tools_blocked && `${values.tools_blocked} refused or known`,
    values.compactions && `compacted ${values.compactions} times`,
    values.stop && `ended: ${String(values.stop).replaceAll("_", " ")}`,
    seconds(values.seconds),
  ].filter(Boolean).join(" · ");
}
