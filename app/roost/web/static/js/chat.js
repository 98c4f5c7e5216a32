// Conversations with the fleet's models.

import { ApiError, UnreachableError, call, events, get } from "./api.js";
import { confirmed, h, morph, number, show, toast } from "./dom.js";
import { markdown } from "./markdown.js";
import { poll } from "./poll.js";
import { dropChat, forgetChats, keepChat, loadChats, newChat } from "./store.js";

export { forgetChats };

const MODELS_MS = 5000;
const KEEP_MS = 1000;
const AT_END_PX = 60;
const TITLE_SIGNS = 60;

export function chatPage(view, me) {
  let chats = loadChats(me.name);
  let chat = chats[0] ?? newChat();
  let running = null; // AbortController of the answer being streamed
  let models = [];
  let closed = false;
  let told = false; // that there is no room

  const log = h("div", { id: "log", class: "log", role: "log", "aria-label": "Messages", tabindex: "0" });
  const question = h("textarea", { id: "question", rows: "1", placeholder: "Message", enterkeyhint: "send", "aria-describedby": "hint" });
  const send = h("button", { id: "send", class: "strong", type: "submit" }, "Send");
  const stop = h("button", { id: "stop", class: "strong bad", type: "button", hidden: true }, "Stop");
  const model = h("select", { id: "model" });
  const system = h("textarea", { id: "system", rows: "3" });
  const temperature = h("input", { id: "temperature", type: "number", min: "0", max: "2", step: "0.1", placeholder: "the model's own" });
  const side = h("ul", { id: "chats", class: "chats" });
  const ask = h("form", { id: "ask", class: "ask" },
    h("label", { class: "visually-hidden", for: "question" }, "Message"), question, send, stop);

  view.append(
    h("aside", { class: "past", "aria-labelledby": "past-title" },
      h("div", { class: "past-top" },
        h("h2", { id: "past-title" }, "Conversations"),
        h("button", { id: "new", class: "quiet small", type: "button" }, "New")),
      side),
    h("section", { class: "talk", "aria-labelledby": "chat-title" },
      h("div", { class: "bar" },
        h("h1", { id: "chat-title" }, "Chat"),
        h("button", { id: "new-small", class: "quiet small phone", type: "button" }, "New"),
        h("label", { class: "visually-hidden", for: "model" }, "Model"), model,
        h("details", { class: "menu" },
          h("summary", { "aria-label": "Settings of this conversation", title: "Settings" }, "⚙"),
          h("div", { class: "sheet wide" },
            h("label", { for: "system" }, "System message"), system,
            h("label", { for: "temperature" }, "Temperature"), temperature,
            h("p", { class: "note" }, "0 gives the likeliest answer, 1 a varied one.")))),
      log,
      ask,
      h("p", { id: "hint", class: "hint" }, h("kbd", {}, "Enter"), " sends, ", h("kbd", {}, "Shift"), "+", h("kbd", {}, "Enter"),
        " is a new line, ", h("kbd", {}, "Esc"), " stops")),
  );

  // --- Keeping -----------------------------------------------------------------------------------------------------

  function keep() {
    if (!chat.messages.length) return;
    if (!keepChat(me.name, chat) && !told) {
      told = true;
      toast("This browser has no more room: the conversation is lost on a reload.", "bad");
    }
    chats = loadChats(me.name);
  }

  function open(next) {
    running?.abort();
    chat = next;
    system.value = chat.system;
    temperature.value = chat.temperature;
    drawChoices();
    drawSide();
    drawLog();
    log.scrollTop = log.scrollHeight;
  }

  // --- Drawing -----------------------------------------------------------------------------------------------------

  function drawSide() {
    const row = (one) =>
      h("li", {},
        h("button", { class: "quiet past-one", type: "button", "data-open": one.id, "aria-current": one.id === chat.id ? "true" : null }, one.title || "New conversation"),
        h("button", { class: "quiet small", type: "button", "data-drop": one.id, "aria-label": `Delete “${one.title}”`, title: "Delete" }, "×"));
    show(side, chats.length ? chats.map(row) : h("li", { class: "note" }, "Kept in this browser only."));
  }

  function drawChoices() {
    const names = ["auto", ...models.filter((one) => !one.roost.can || one.roost.can.includes("generate"))
      .flatMap((one) => [one.id, ...(one.roost.adapters ?? [])])];
    if (!names.includes(chat.model)) names.push(chat.model);
    const states = new Map(models.map((one) => [one.id, one.roost.state]));
    const words = names.map((name) => (states.has(name) && states.get(name) !== "ready" ? `${name} (${states.get(name)})` : name));
    if ([...model.options].map((option) => option.text).join("\n") !== words.join("\n")) {
      model.replaceChildren(...names.map((name, n) => new Option(words[n], name)));
    }
    model.value = chat.model;
  }

  function bubble(message, index) {
    const last = index === chat.messages.length - 1;
    if (message.role === "user") return h("article", { class: "message user", "aria-label": "You" }, h("p", { class: "as-typed" }, message.content));
    const live = last && running;
    return h("article", { class: `message assistant${live ? " running" : ""}`, "aria-label": message.model ?? "Model", "aria-busy": live ? "true" : null },
      message.thinking && h("details", { class: "thinking" }, h("summary", {}, "Thinking"), h("div", { class: "as-typed" }, message.thinking)),
      h("div", { class: "prose" }, markdown(message.content)),
      message.error && h("p", { class: "error", role: "alert" }, message.error),
      !live && h("footer", {},
        h("span", { class: "note" }, [message.stopped && "stopped", message.note].filter(Boolean).join(" · ")),
        message.content && h("button", { class: "quiet small", type: "button", "data-act": "copy", "data-n": index }, "Copy"),
        last && h("button", { class: "quiet small", type: "button", "data-act": "again" }, message.error ? "Try again" : "Another answer")));
  }

  function drawLog() {
    const tries = ["What is the capital of France?", "Explain tides to a child.", "Write a haiku about a hen house."];
    show(log, chat.messages.length ? chat.messages.map(bubble)
      : h("div", { class: "empty" }, h("p", {}, "Ask the fleet something."),
          h("div", { class: "tries" }, tries.map((text) => h("button", { class: "quiet", type: "button", "data-try": text }, text)))));
    const n = chat.messages.length;
    document.getElementById("chat-title").textContent = chat.title || (n ? "Chat" : "New conversation");
  }

  // Draws the newest message only: the ones before it do not change while it grows.
  function drawLast() {
    const index = chat.messages.length - 1;
    const old = log.children[index];
    if (!old || log.children.length !== chat.messages.length) { drawLog(); return; }
    const end = log.scrollHeight - log.scrollTop - log.clientHeight < AT_END_PX;
    morph(old, bubble(chat.messages[index], index));
    if (end) log.scrollTop = log.scrollHeight;
  }

  function setRunning(controller) {
    running = controller;
    send.hidden = controller !== null;
    stop.hidden = controller === null;
  }

  // --- Asking ------------------------------------------------------------------------------------------------------

  async function stream(mine, message, controller) {
    const began = performance.now();
    let first = 0, usage = null, pending = 0, cost = 0, kept = began;
    const sent = mine.messages.slice(0, -1).filter((one) => one.content).map(({ role, content }) => ({ role, content }));
    const answer = await call("/v1/chat/completions", {
      method: "POST",
      signal: controller.signal,
      json: {
        model: mine.model,
        messages: mine.system.trim() ? [{ role: "system", content: mine.system.trim() }, ...sent] : sent,
        ...(mine.temperature === "" ? {} : { temperature: Number(mine.temperature) }),
        stream: true,
        stream_options: { include_usage: true },
      },
    });
    message.model = answer.headers.get("x-roost-model") ?? "";
    const route = answer.headers.get("x-roost-route");
    const instead = answer.headers.get("x-roost-fallback-for");
    const draw = () => {
      pending = 0;
      if (closed || chat !== mine) return;
      const at = performance.now();
      drawLast();
      cost = performance.now() - at;
    };
    try {
      for await (const event of events(answer)) {
        usage = event.usage ?? usage;
        const delta = event.choices?.[0]?.delta ?? {};
        if (delta.reasoning_content) message.thinking = (message.thinking ?? "") + delta.reasoning_content;
        if (delta.content) message.content += delta.content;
        if (!delta.content && !delta.reasoning_content) continue;
        first ||= performance.now();
        // A long answer costs more to draw; drawing never takes more than a third of the time.
        pending ||= setTimeout(draw, Math.max(30, 2 * cost));
        if (performance.now() - kept > KEEP_MS) { kept = performance.now(); keepChat(me.name, mine); }
      }
    } finally {
      clearTimeout(pending);
      const parts = [message.model];
      if (instead) parts.push(`in place of ${instead}, which is ${answer.headers.get("x-roost-fallback-reason")}`);
      if (route) parts.push(route);
      if (first) parts.push(`first token ${number(first - began)} ms`);
      const time = (performance.now() - first) / 1000;
      if (first && usage) parts.push(`${usage.completion_tokens} tokens`, `${number(usage.completion_tokens / time, 1)} tokens/s`);
      message.note = parts.filter(Boolean).join(" · ");
    }
  }

  async function answer() {
    const mine = chat;
    const message = { role: "assistant", content: "", stopped: true }; // until it is not: a reload may come first
    mine.messages.push(message);
    mine.at = Date.now();
    const controller = new AbortController();
    setRunning(controller);
    keep();
    drawSide();
    drawLog();
    log.scrollTop = log.scrollHeight;
    try {
      await stream(mine, message, controller);
      message.stopped = false;
      if (!message.content && !message.thinking) message.error = "The model gave an empty answer.";
    } catch (error) {
      if (!controller.signal.aborted) {
        message.stopped = false;
        message.error = readable(error);
        if (!(error instanceof ApiError || error instanceof UnreachableError) && error.name !== "Error") console.error(error);
      }
    } finally {
      if (running === controller) setRunning(null);
      if (mine.messages.includes(message)) keepChat(me.name, mine);
      if (!closed && chat === mine) drawLog();
      if (!closed) { chats = loadChats(me.name); drawSide(); }
    }
  }

  function submit(event) {
    event?.preventDefault();
    const text = question.value.trim();
    if (!text || running) return;
    question.value = "";
    fit();
    chat.title ||= text.replace(/\s+/g, " ").slice(0, TITLE_SIGNS);
    // What was never answered, or failed before a word came, is not sent again beside the new question.
    if (chat.messages.at(-1)?.role === "assistant" && !chat.messages.at(-1).content) chat.messages.pop();
    chat.messages.push({ role: "user", content: text });
    answer();
  }

  function again() {
    if (running) return;
    while (chat.messages.at(-1)?.role === "assistant") chat.messages.pop();
    if (chat.messages.length) answer();
  }

  function fit() {
    question.rows = Math.min(8, Math.max(1, question.value.split("\n").length));
  }

  // --- Events ------------------------------------------------------------------------------------------------------

  function fresh() {
    open(newChat(chat));
    question.focus();
  }

  view.addEventListener("click", async (event) => {
    const at = event.target.closest("button");
    if (!at || closed) return; // the view is that of another page by then
    const { open: opened, drop, act, n } = at.dataset;
    if (at.id === "new" || at.id === "new-small") fresh();
    else if (at.id === "stop") running?.abort();
    else if (at.dataset.try) { question.value = at.dataset.try; submit(); }
    else if (opened) open(loadChats(me.name).find((one) => one.id === opened) ?? newChat(chat));
    else if (drop) {
      const gone = chats.find((one) => one.id === drop);
      if (!gone || !(await confirmed("Delete this conversation?", `“${gone.title}” is kept nowhere else.`, "Delete"))) return;
      if (chat.id === drop) { running?.abort(); chat.messages = []; }
      dropChat(me.name, drop);
      chats = loadChats(me.name);
      if (chat.id === drop) open(chats[0] ?? newChat(chat));
      else drawSide();
    } else if (act === "again") again();
    else if (act === "copy") await copy(chat.messages[Number(n)].content);
    else if (act === "copy-code") await copy(at.closest(".code").querySelector("code").textContent);
  });
  ask.addEventListener("submit", submit);
  question.addEventListener("input", fit);
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  });
  model.addEventListener("change", () => { chat.model = model.value; keep(); });
  system.addEventListener("change", () => { chat.system = system.value; keep(); });
  temperature.addEventListener("change", () => { chat.temperature = temperature.value; keep(); });
  const onKey = (event) => { if (event.key === "Escape") running?.abort(); };
  document.addEventListener("keydown", onKey);
  const onLeaving = () => running?.abort(); // a reload stops an answer; it does not break off
  window.addEventListener("pagehide", onLeaving);

  open(chat);
  question.focus();
  const stopPolling = poll(async () => {
    models = (await get("/v1/models")).data;
    drawChoices();
  }, MODELS_MS);

  return () => {
    closed = true;
    stopPolling();
    running?.abort();
    document.removeEventListener("keydown", onKey);
    window.removeEventListener("pagehide", onLeaving);
  };
}

function readable(error) {
  if (!(error instanceof ApiError)) return error.message;
  const hints = {
    model_unavailable: "The model is not ready yet. Try again in a moment, or choose another one.",
    context_length_exceeded: "Begin a new conversation, or choose a model with a longer context.",
    rate_limit_exceeded: "This key's limit is reached.",
    insufficient_quota: "An administrator can raise the budget with `roost keys set`.",
    model_not_found: "Choose another model.",
  };
  return [error.message, hints[error.code]].filter(Boolean).join(" ");
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied.");
  } catch {
    toast("The browser does not let this page copy.", "bad");
  }
}
