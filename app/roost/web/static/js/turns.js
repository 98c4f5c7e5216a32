// What a conversation with the agent shows, made of its records and of the live events of turns. Nothing is drawn here.
//
// An item is {kind, turn, …}: "user" and "answer" {text}, "thought" {text}, "tool" {id, tool, arguments, result},
// "question" {id, tool, text, answer: "" while it is open},
// "note" {text}, "error" {text}, "took" {values}. A user's item without a turn waits for one.

const NOTES = {
  "turn.failed": (detail) => detail.reason,
  "specialist.failed": (detail) => detail.reason,
  "work.stopped": (detail) => `The work ended early: ${String(detail.why).replaceAll("_", " ")}.`,
  "helper.call": (detail) => `A helper uses ${detail.tool}.`,
  "answer.ended": () => "The answer repeated itself and was ended.",
  "work.note": (detail) => detail.text,
  "skill.suggested": (detail) => `That was new and worked. Say "save it as a skill" to keep the way as ${detail.skill}.`,
};
const HIDDEN = new Set(["context.gated", "context.repaired", "context.prefix_broken"]);
const TOLD_TWICE = new Set(["turn.failed", "skill.suggested"]); // live, as an error and as a notice as well

function noteOf(name, detail) {
  if (name === "preflight") return detail.actions?.length ? `The Router (${detail.by}) chose ${detail.actions.map((one) => one.tool).join(", ")}.` : "";
  if (name.startsWith("context.")) return HIDDEN.has(name) ? "" : detail.message;
  return NOTES[name]?.(detail) ?? "";
}

const questionOf = ({ id, tool, text }, turn) => ({ kind: "question", turn, id, tool, text, answer: "" });

function answered(items, { id, answer }) {
  const asked = items.findLast((one) => one.kind === "question" && one.id === id);
  if (asked) asked.answer = answer;
}

// Returns the items of a conversation's records.
export function itemsOf(records) {
  const items = [];
  const calls = new Map();
  for (const { body } of records) {
    const turn = body.turn ?? "";
    if (body.kind === "message" && body.role === "user") items.push({ kind: "user", turn, text: body.text });
    else if (body.kind === "message") {
      if (body.reasoning) items.push({ kind: "thought", turn, text: body.reasoning });
      items.push({ kind: "answer", turn, text: body.text });
    }
    else if (body.kind === "tool_call") {
      const item = { kind: "tool", turn, id: body.call.id, tool: body.call.name, arguments: body.call.arguments, over: true };
      calls.set(item.id, item);
      items.push(item);
    } else if (body.kind === "tool_result" && calls.has(body.result.id)) {
      const { outcome, text, seconds, changed } = body.result;
      calls.get(body.result.id).result = { outcome, text, seconds, changed, bytes: new TextEncoder().encode(text).length };
    } else if (body.kind === "event" && body.name === "question") items.push(questionOf(body.detail, turn));
    else if (body.kind === "event" && body.name === "question.answered") answered(items, body.detail);
    else if (body.kind === "event" && body.name === "message.added") items.push({ kind: "user", turn, text: body.detail.text });
    else if (body.kind === "event") {
      const text = noteOf(body.name, body.detail);
      if (text) items.push({ kind: body.name === "turn.failed" ? "error" : "note", turn, text });
    } else if (body.kind === "metrics") items.push({ kind: "took", turn, values: body.values });
  }
  return items;
}

// One conversation as it goes on: `items`, the turn under way (""), and in words what is done now.
export class Turns {
  constructor() {
    this.items = [];
    this.turn = "";
    this.doing = "";
    this.unknown = false; // whether somebody else said what is answered: it stands in the records
  }

  // Takes what is recorded for true; what the turn under way has told so far stays.
  read(records) {
    const recorded = itemsOf(records);
    const latest = recorded.findLast((one) => one.kind === "user")?.text ?? ""; // of several, all in one
    const kept = this.items.filter((one) => (one.turn === "" && one.kind === "user") || (this.turn && one.turn === this.turn));
    const asked = recorded.some((one) => one.kind === "user" && one.turn === this.turn);
    this.items = [
      ...recorded.filter((one) => !this.turn || one.turn !== this.turn || one.kind === "user"),
      ...kept.filter((one) => one.kind !== "user" || (one.turn === "" ? !latest.includes(one.text) : !asked)),
    ];
    this.unknown = false;
  }

  // Returns the item; it is `sent` once the service has taken it.
  say(text) {
    this.items.push({ kind: "user", turn: "", text });
    return this.items.at(-1);
  }

  get busy() {
    return this.turn !== "" || this.items.some((one) => one.kind === "user" && one.turn === "" && !one.lost);
  }

  // Forgets what was not taken.
  unsay(text) {
    const at = this.items.findLastIndex((one) => one.kind === "user" && one.turn === "" && one.text === text);
    if (at >= 0) this.items.splice(at, 1);
  }

  // Takes a live event; returns whether the records have to be read anew.
  hear(event) {
    const { turn } = this;
    switch (event.type) {
      case "turn":
        this.turn = event.turn;
        this.doing = "The agent begins";
        // told from its beginning, perhaps once more
        this.items = this.items.filter((one) => one.turn !== event.turn || one.kind === "user");
        this.unknown = !this.#claim(event.turn, event.messages) && !this.items.some((one) => one.turn === event.turn);
        return false;
      case "status":
        this.doing = `The Router is ${event.text}`;
        return false;
      case "text":
        this.doing = "Main answers";
        return this.#grow("answer", event.text);
      case "thought":
        this.doing = "Main thinks";
        return this.#grow("thought", event.text);
      case "tool_call":
        this.doing = `The Specialist uses ${event.tool}`;
        this.items.push({ kind: "tool", turn, id: event.id, tool: event.tool, arguments: event.arguments });
        return false;
      case "tool_result": {
        const call = this.items.findLast((one) => one.kind === "tool" && one.id === event.id);
        if (call) call.result = event;
        this.doing = turn ? "The Specialist reads the result" : "";
        return false;
      }
      case "question":
        this.doing = "Waiting for your word";
        this.items.push(questionOf(event, turn));
        return false;
      case "question.answered":
        answered(this.items, event);
        return false;
      case "notice":
        this.items.push({ kind: "note", turn, text: event.text });
        return false;
      case "event":
        return this.#happened(event);
      case "metrics":
        this.items.push({ kind: "took", turn, values: event });
        return false;
      case "error":
        this.items.push({ kind: "error", turn, text: [event.message, event.fix].filter(Boolean).join(" ") });
        return false;
      case "cancelled":
        this.#claim(event.turn, Infinity);
        this.items.push({ kind: "note", turn: event.turn, text: "stopped" });
        return this.#over();
      case "end":
        return this.#over();
      case "idle":
        return this.#over() || this.items.some((one) => one.kind === "user" && one.turn === "");
      case "missed": // the service began anew: what waited there is answered no more
        for (const one of this.items) if (one.kind === "user" && one.turn === "" && one.sent) one.lost = true;
        return true;
      default:
        return false;
    }
  }

  // The next answer is another one, not more of the one before.
  #grow(kind, text) {
    const last = this.items.at(-1);
    if (last?.kind === kind && last.turn === this.turn) last.text += text;
    else this.items.push({ kind, turn: this.turn, text });
    return false;
  }

  #happened(event) {
    if (event.name === "message.added") {
      const said = this.items.find((one) => one.kind === "user" && one.turn === "" && one.text === event.text);
      if (said) said.turn = this.turn;
      else this.items.push({ kind: "user", turn: this.turn, text: event.text });
      return false;
    }
    const text = noteOf(event.name, event);
    if (text && !TOLD_TWICE.has(event.name)) this.items.push({ kind: "note", turn: this.turn, text });
    const unknown = this.unknown;
    this.unknown = false;
    return unknown;
  }

  #claim(turn, count) {
    const waiting = this.items.filter((one) => one.kind === "user" && one.turn === "" && !one.lost).slice(0, count);
    for (const one of waiting) one.turn = turn;
    return waiting.length > 0;
  }

  #over() {
    const { unknown } = this;
    this.turn = "";
    this.doing = "";
    this.unknown = false;
    for (const one of this.items) if (one.kind === "tool") one.over = true;
    for (const one of this.items) if (one.kind === "question") one.answer ||= "stopped";
    return unknown;
  }
}

// Returns what all turns took together: turns, calls, tokens by kind, seconds.
export function sum(items) {
  const all = { turns: 0, calls: 0, prompt: 0, cached: 0, completion: 0, seconds: 0 };
  for (const { values } of items.filter((one) => one.kind === "took")) {
    all.turns += 1;
    all.calls += values.tools_run ?? 0;
    all.seconds += values.seconds ?? 0;
    for (const use of Object.values(values.roles ?? {})) {
      all.prompt += use.prompt_tokens;
      all.cached += use.cached_tokens;
      all.completion += use.completion_tokens;
    }
  }
  return all;
}
