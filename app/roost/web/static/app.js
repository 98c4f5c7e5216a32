// Draws the fleet and holds a conversation, through the public API only.
"use strict";

const KEY = "roost-key";
const POLL_MS = 3000;
const $ = (id) => document.getElementById(id);

let messages = []; // what was said, without the system message
let running = null; // AbortController of the answer being streamed

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// --- API ---------------------------------------------------------------------------------------------------

class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(path, options = {}) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ""}`, ...options.headers };
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new ApiError(answer.status, body.error?.message ?? `The service answered ${answer.status}.`);
}

// Yields the JSON of each server-sent event; ends at [DONE].
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The answer broke off.");
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

// --- Fleet -------------------------------------------------------------------------------------------------

function drawReadiness(state, text, reasons) {
  $("readiness").dataset.state = state;
  if ($("readiness").textContent !== text) $("readiness").textContent = text;
  $("reasons").hidden = reasons.length === 0;
  $("reasons").replaceChildren(...reasons.map((reason) => element("li", "", reason)));
}

function modelCard(model) {
  const card = element("article", "model");
  const about = model.roost;
  const state = element("p", "pill", about.state);
  state.dataset.state = about.state;
  const list = element("dl");
  const rows = [
    ["slot", about.slot],
    ["also", about.aliases.join(", ")],
    ["context", about.context ? `${about.context.toLocaleString("en")} tokens` : "–"],
    ["working", `${about.in_flight} of ${about.parallel}`],
    ...(about.memory ? [["memory", `${(about.memory / 2 ** 30).toFixed(1)} GiB planned`]] : []),
    ...(about.adapters.length ? [["adapters", about.adapters.join(", ")]] : []),
    ...about.endpoints.map((endpoint) => ["at", `${endpoint.id.split("@").pop()} (${endpoint.state})`]),
  ];
  for (const [name, value] of rows) list.append(element("dt", "", name), element("dd", "", value));
  card.append(element("h3", "", model.id), state);
  if (about.reason) card.append(element("p", "note", about.reason));
  card.append(list);
  return card;
}

function drawChoices(models) {
  const names = ["auto", ...models.flatMap((model) => [model.id, ...model.roost.adapters])];
  const select = $("model");
  if ([...select.options].map((option) => option.value).join() === names.join()) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  select.value = names.includes(chosen) ? chosen : "auto";
}

async function refresh() {
  try {
    const state = await (await fetch("/readyz", { cache: "no-store" })).json();
    const loading = Object.values(state.slots).some((slot) => slot.loading > 0);
    if (state.ready) drawReadiness("ready", "ready", state.reasons);
    else drawReadiness(loading ? "loading" : "down", loading ? "loading" : "no model", state.reasons);
  } catch {
    drawReadiness("down", "not reachable", ["This page cannot reach its service."]);
    return;
  }
  if (!sessionStorage.getItem(KEY)) return;
  try {
    const { data } = await (await call("/v1/models")).json();
    $("models").replaceChildren(...data.map(modelCard));
    drawChoices(data);
  } catch (error) {
    if (error.status === 401) forget("This key is not accepted.");
  }
}

// --- Key ---------------------------------------------------------------------------------------------------

function showKeyForm(shown) {
  $("key-form").hidden = !shown;
  $("talk").hidden = shown;
  $("forget").hidden = shown;
  (shown ? $("key") : $("question")).focus();
}

function forget(why = "") {
  running?.abort();
  sessionStorage.removeItem(KEY);
  $("models").replaceChildren();
  $("key").select();
  startAnew();
  $("key-error").textContent = why;
  $("key-error").hidden = !why;
  showKeyForm(true);
}

async function open(event) {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("key").value.trim());
  try {
    await call("/v1/models");
  } catch (error) {
    forget(error.message);
    return;
  }
  $("key").value = "";
  $("key-error").hidden = true;
  showKeyForm(false);
  await refresh();
}

// --- Conversation ------------------------------------------------------------------------------------------

function startAnew() {
  running?.abort();
  messages = [];
  $("log").replaceChildren($("empty"));
  $("empty").hidden = false;
}

function addMessage(role, text) {
  $("empty").hidden = true;
  const made = element("div", `message ${role}`);
  made.append(element("span", "", text));
  $("log").append(made);
  $("log").scrollTop = $("log").scrollHeight;
  return made;
}

function setRunning(controller) {
  running = controller;
  $("send").hidden = controller !== null;
  $("stop").hidden = controller === null;
}

function speed(firstAt, endAt, sentAt, usage, model) {
  const parts = [model, `first token ${Math.round(firstAt - sentAt)} ms`];
  const seconds = (endAt - firstAt) / 1000;
  if (usage && seconds > 0) {
    parts.push(`${usage.completion_tokens} tokens`, `${(usage.completion_tokens / seconds).toFixed(1)} tokens/s`);
  }
  return parts.join(" · ");
}

async function answer(history, bubble, signal) {
  const text = bubble.firstChild;
  const log = $("log");
  const system = $("system").value.trim();
  const sentAt = performance.now();
  let firstAt = 0, usage = null, model = "", content = "";
  const response = await call("/v1/chat/completions", {
    method: "POST",
    signal,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      model: $("model").value || "auto",
      messages: system ? [{ role: "system", content: system }, ...history] : history,
      ...($("temperature").value === "" ? {} : { temperature: Number($("temperature").value) }),
      stream: true,
      stream_options: { include_usage: true },
    }),
  });
  try {
    for await (const event of events(response)) {
      firstAt ||= performance.now();
      usage = event.usage ?? usage;
      model = event.model ?? model;
      const piece = event.choices?.[0]?.delta?.content;
      if (!piece) continue;
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      content += piece;
      text.textContent = content;
      if (atEnd) log.scrollTop = log.scrollHeight;
    }
  } finally {
    if (firstAt) bubble.append(element("small", "", speed(firstAt, performance.now(), sentAt, usage, model)));
    if (content) messages = [...history, { role: "assistant", content }];
    log.scrollTop = log.scrollHeight;
  }
}

async function send(event) {
  event?.preventDefault();
  const question = $("question").value.trim();
  if (!question || running) return;
  $("question").value = "";
  addMessage("user", question);
  const history = [...messages, { role: "user", content: question }];
  const bubble = addMessage("assistant", "");
  bubble.classList.add("running");
  const controller = new AbortController();
  setRunning(controller);
  try {
    await answer(history, bubble, controller.signal);
  } catch (error) {
    if (error.name === "AbortError" || controller.signal.aborted) bubble.append(element("small", "", "stopped"));
    else addMessage("error", error.message).setAttribute("role", "alert");
    if (error.status === 401) forget(error.message);
  } finally {
    bubble.classList.remove("running");
    if (running === controller) setRunning(null);
  }
}

// --- Start -------------------------------------------------------------------------------------------------

$("base").textContent = `${location.origin}/v1`;
$("key-form").addEventListener("submit", open);
$("forget").addEventListener("click", () => forget());
$("new").addEventListener("click", () => { startAnew(); $("question").focus(); });
$("ask").addEventListener("submit", send);
$("stop").addEventListener("click", () => running?.abort());
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
setInterval(() => { if (!document.hidden) refresh(); }, POLL_MS);
showKeyForm(!sessionStorage.getItem(KEY));
refresh();
