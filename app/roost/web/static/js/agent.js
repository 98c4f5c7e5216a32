// Conversations with the agent, which are kept by the service, and what it does in them while it does it.

import { drawItem } from "./activity.js";
import { ApiError, call, get } from "./api.js";
import { PATH, conversations, placeOf } from "./conversations.js";
import { h, morph, seconds, short, show, toast } from "./dom.js";
import { poll } from "./poll.js";
import { Turns, sum } from "./turns.js";
import { watching } from "./watching.js";

const LIST_MS = 15_000;
const WORKERS_MS = 5000;
const OPENED_MS = 5000;
const AT_END_PX = 60;
const SHOWN = 200; // items of a conversation that are drawn unasked

export function agentPage(view) {
  let workers = [];
  let chosen = null; // what holds for the conversation: think, cost_mode, workspace
  let id = "";
  let records = [];
  let turns = new Turns();
  let all = false; // whether every item is drawn
  let drawn = [];
  let pending = 0;
  let cost = 0;
  let closed = false;
  let connected = true;
  let unwatch = () => {};
  let reading = null;

  // --- What there is ---------------------------------------------------------------------------------------------

  const past = conversations({ open: (next) => open(next), changed: () => drawTitle() });
  const earlier = h("button", { id: "earlier", class: "quiet small", type: "button", hidden: true }, "Show what was before");
  const empty = h("div", { class: "empty" });
  const list = h("div", { class: "turns" });
  const log = h("div", { id: "log", class: "log", role: "log", "aria-label": "Conversation", tabindex: "0" }, earlier, empty, list);
  const question = h("textarea", { id: "question", rows: "1", placeholder: "Message", enterkeyhint: "send", "aria-describedby": "hint" });
  const stop = h("button", { id: "stop", class: "strong bad", type: "button", hidden: true }, "Stop");
  const ask = h("form", { id: "ask", class: "ask" },
    h("label", { class: "visually-hidden", for: "question" }, "Message"), question,
    h("button", { id: "send", class: "strong", type: "submit" }, "Send"), stop);
  const urgent = h("input", { id: "urgent", type: "checkbox" });
  const urgentLabel = h("label", { for: "urgent", hidden: true }, urgent, " into this turn");
  const doing = h("p", { id: "doing", class: "doing", role: "status" });
  const took = h("p", { id: "took", class: "note" });
  const undo = h("button", { id: "undo", class: "quiet small", type: "button", title: "Put back the files that the last call changed" }, "Undo");
  const mode = h("select", { id: "mode" }, ["fast", "smart", "max"].map((name) => h("option", { value: name }, name)));
  const think = h("input", { id: "think", type: "checkbox" });
  const workspace = h("select", { id: "workspace" });
  const working = h("div", { id: "workers" });

  view.append(
    h("aside", { class: "past", "aria-labelledby": "past-title" },
      h("div", { class: "past-top" },
        h("h2", { id: "past-title" }, "Conversations"),
        h("button", { id: "new", class: "quiet small", type: "button" }, "New")),
      past.words, past.list, past.shelf),
    h("section", { class: "talk", "aria-labelledby": "agent-title" },
      h("div", { class: "bar" },
        h("h1", { id: "agent-title" }, "Agent"),
        h("div", { class: "phone pick" }, h("label", { class: "visually-hidden", for: "pick" }, "Conversation"), past.pick),
        h("button", { id: "new-small", class: "quiet small phone", type: "button" }, "New"),
        undo,
        h("details", { class: "menu" },
          h("summary", { "aria-label": "Settings of this conversation", title: "Settings" }, "⚙"),
          h("div", { class: "sheet wide" },
            past.settings,
            h("label", { for: "mode" }, "Cost mode"), mode,
            h("label", { for: "workspace" }, "Workspace"), workspace,
            h("label", { for: "think" }, think, " Show what the model thinks"),
            working))),
      log,
      h("div", { class: "state" }, doing, urgentLabel, took),
      ask,
      h("p", { id: "hint", class: "hint" }, h("kbd", {}, "Enter"), " sends, ", h("kbd", {}, "Shift"), "+", h("kbd", {}, "Enter"),
        " is a new line, ", h("kbd", {}, "Esc"), " stops; a turn goes on when this page is closed")),
  );

  const busy = () => turns.busy;
  const place = () => placeOf(id);

  // --- Drawing -----------------------------------------------------------------------------------------------------

  function drawTitle() {
    document.getElementById("agent-title").textContent = past.title();
  }

  function drawWorkers() {
    show(working, workers.length
      ? h("dl", {}, workers.map((one) => [
          h("dt", {}, one.host),
          h("dd", {}, one.workspaces.map((each) => each.name).join(", ") || "no workspace", ` · ${one.tools.length} tools`)]))
      : h("p", { class: "note" }, "No worker is connected. Name a folder with ", h("code", {}, "roost workspace add PATH"),
          " and start ", h("code", {}, "roost worker"), " where it is."));
    const names = workers.flatMap((one) => one.workspaces.map((each) => each.name));
    const twice = new Set(names.filter((name, n) => names.indexOf(name) !== n));
    const choices = [...new Set(workers.flatMap((one) => one.workspaces.map((each) => (twice.has(each.name) ? `${one.host}/${each.name}` : each.name))))];
    const held = chosen?.workspace;
    if (held && !choices.includes(held)) choices.unshift(held);
    const words = held ? choices : ["", ...choices];
    if ([...workspace.options].map((option) => option.value).join("\n") !== words.join("\n") || !workspace.options.length) {
      workspace.replaceChildren(...words.map((name) => new Option(name || (choices.length ? "not chosen" : "none"), name)));
    }
    workspace.value = held ?? "";
  }

  function drawChosen() {
    for (const control of [mode, think, workspace]) control.disabled = !chosen;
    if (chosen) { mode.value = chosen.cost_mode; think.checked = chosen.think; }
    drawWorkers();
    drawState();
  }

  function drawState() {
    const words = !connected ? "Connecting again…" : turns.doing ? `${turns.doing}…` : busy() ? "Waiting…" : "";
    if (doing.textContent !== words) doing.textContent = words;
    stop.hidden = !busy();
    urgentLabel.hidden = !turns.turn;
    undo.disabled = !id || busy();
    const much = sum(turns.items);
    took.textContent = [
      chosen && `cost mode ${chosen.cost_mode}`,
      much.turns && `${much.turns} ${much.turns === 1 ? "turn" : "turns"}`,
      much.calls && `${much.calls} ${much.calls === 1 ? "call" : "calls"}`,
      much.turns && `${short(much.prompt)} tokens in, ${short(much.cached)} of them cached, ${short(much.completion)} out`,
      much.turns && seconds(much.seconds),
    ].filter(Boolean).join(" · ");
  }

  function draw() {
    pending = 0;
    if (closed) return;
    const at = performance.now();
    const end = log.scrollHeight - log.scrollTop - log.clientHeight < AT_END_PX;
    const items = all ? turns.items : turns.items.slice(-SHOWN);
    earlier.hidden = items.length === turns.items.length;
    empty.hidden = items.length > 0;
    items.forEach((item, n) => {
      const live = item === turns.items.at(-1) && turns.turn !== "";
      const sign = `${item.turn} ${item.text?.length} ${item.result?.outcome} ${item.answer} ${item.over} ${item.lost} ${live}`;
      if (drawn[n]?.item === item && drawn[n].sign === sign) return;
      const old = list.children[n];
      const fresh = drawItem(item, live);
      if (!old) list.append(fresh);
      else if (drawn[n]?.item === item) morph(old, fresh);
      else old.replaceWith(fresh);
      drawn[n] = { item, sign };
    });
    [...list.children].slice(items.length).forEach((node) => node.remove());
    drawn.length = items.length;
    drawState();
    if (end) log.scrollTop = log.scrollHeight;
    cost = performance.now() - at;
  }

  // A long answer costs more to draw; drawing never takes more than a third of the time.
  function drawSoon() {
    pending ||= setTimeout(draw, Math.max(30, 2 * cost));
  }

  function say(text) {
    show(empty, h("p", {}, text), !workers.length && h("p", { class: "note" },
      "It reads, writes and runs things where a worker of yours is connected; without one it answers and remembers."));
  }

  // --- One conversation --------------------------------------------------------------------------------------------

  async function read(from) {
    for (;;) {
      const { records: more, ...answer } = await get(`${placeOf(from)}?limit=1000&after=${records.at(-1)?.seq ?? 0}`);
      if (closed || id !== from) return;
      records.push(...more);
      past.know(answer);
      drawTitle();
      if (!answer.more) break;
    }
    turns.read(records);
    drawSoon();
  }

  // Reads what is new in the records: once at a time, and once more if it was asked for meanwhile.
  function refresh() {
    const from = id;
    const next = (reading ?? Promise.resolve()).then(() => (id === from && !closed ? read(from) : undefined)).catch((error) => {
      if (!closed && id === from) toast(error.message, "bad");
    });
    reading = next;
    next.finally(() => { if (reading === next) reading = null; });
    return next;
  }

  function watch() {
    const from = id;
    let first = true;
    let opened = () => {};
    const ready = new Promise((resolve) => { opened = resolve; });
    unwatch = watching(place(), {
      heard(event) {
        const behind = turns.hear(event);
        const over = ["end", "cancelled", "idle"].includes(event.type);
        // The turn may have ended between reading the records and watching; and what is being read may be from before
        // its end.
        if (behind || (first && event.type === "idle") || (over && reading)) refresh();
        if (event.type === "idle" || event.type === "turn") first = false;
        if (over) urgent.checked = false;
        // A conversation has a title as soon as its first message is recorded. The list is asked for now and then anyway.
        if (over || event.name === "preflight") past.relist().catch(() => {});
        drawSoon();
      },
      state(now) { connected = now; if (now) opened(); drawSoon(); },
      gone(error) {
        opened();
        if (closed || id !== from) return;
        toast(error.status === 404 ? "This conversation was removed." : error.message, "bad");
        open("");
      },
    });
    return ready;
  }

  async function open(next) {
    unwatch();
    unwatch = () => {};
    id = next;
    records = [];
    turns = new Turns();
    drawn = [];
    all = false;
    chosen = null;
    connected = true;
    list.replaceChildren();
    history.replaceState(null, "", `#/agent${id ? `?${encodeURIComponent(id)}` : "?new"}`);
    say("Tell the agent what you want.");
    past.opened(id);
    drawTitle();
    drawChosen();
    draw();
    if (!id) return;
    const from = id;
    try {
      await Promise.all([read(from), choose({})]);
    } catch (error) {
      if (closed || id !== from) return;
      if (!(error instanceof ApiError)) { toast(error.message, "bad"); }
      else if (error.status === 404) { toast("There is no such conversation.", "bad"); open(""); return; }
      else { toast(error.message, "bad"); return; }
    }
    if (closed || id !== from) return;
    draw();
    log.scrollTop = log.scrollHeight;
    watch();
  }

  async function choose(what) {
    const from = id;
    const held = await (await call(`${place()}/choices`, { method: "POST", json: what })).json();
    if (closed || id !== from) return;
    chosen = held;
    drawChosen();
  }

  async function chosenBy(what) {
    try {
      await choose(what);
    } catch (error) {
      toast(error.message, "bad");
      drawChosen();
    }
  }

  async function submit(event) {
    event?.preventDefault();
    const text = question.value.trim();
    if (!text) return;
    const priority = urgent.checked && turns.turn !== "";
    question.value = "";
    urgent.checked = false;
    fit();
    const mine = turns;
    const said = mine.say(text);
    draw();
    log.scrollTop = log.scrollHeight;
    try {
      if (!id) {
        const made = (await (await call(PATH, { method: "POST", json: {} })).json()).id;
        if (closed || turns !== mine) return;
        id = made;
        past.opened(id);
        history.replaceState(null, "", `#/agent?${encodeURIComponent(id)}`);
        // What is told from its beginning needs somebody who listens; where nobody can, the turn goes on all the same.
        await Promise.race([watch(), new Promise((resolve) => { setTimeout(resolve, OPENED_MS); })]);
        chosenBy({});
      }
      await call(`${place()}/messages`, { method: "POST", json: { text, priority, answers: true } });
      said.sent = true;
    } catch (error) {
      mine.unsay(text);
      if (closed || turns !== mine) return;
      question.value = [text, question.value].filter(Boolean).join("\n");
      fit();
      toast(error.message, "bad");
      draw();
    }
  }

  async function end() {
    if (!id || !busy()) return;
    try {
      await call(`${place()}/cancel`, { method: "POST", json: {} });
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  async function answer(asked, word) {
    try {
      await call(`${place()}/questions/${encodeURIComponent(asked)}`, { method: "POST", json: { answer: word } });
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  async function putBack() {
    try {
      const done = await (await call(`${place()}/undo`, { method: "POST", json: {} })).json();
      toast(done.text.slice(0, 300), done.outcome === "ok" ? "good" : "bad");
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  // --- Events ------------------------------------------------------------------------------------------------------

  function fit() {
    question.rows = Math.min(8, Math.max(1, question.value.split("\n").length));
  }

  view.onclick = (event) => {
    const at = event.target.closest("button");
    if (!at) return;
    if (at.id === "new" || at.id === "new-small") { open(""); question.focus(); }
    else if (at.id === "stop") end();
    else if (at.id === "undo") putBack();
    else if (at.id === "earlier") { all = true; drawn = []; list.replaceChildren(); draw(); }
    else if (at.dataset.answer) answer(at.dataset.question, at.dataset.answer);
    else if (at.dataset.act === "copy-code") navigator.clipboard.writeText(at.closest(".code").querySelector("code").textContent).then(() => toast("Copied."), () => toast("The browser does not let this page copy.", "bad"));
  };
  ask.addEventListener("submit", submit);
  question.addEventListener("input", fit);
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  });
  mode.addEventListener("change", () => chosenBy({ cost_mode: mode.value }));
  think.addEventListener("change", () => chosenBy({ think: think.checked }));
  workspace.addEventListener("change", () => chosenBy({ workspace: workspace.value }));
  const onKey = (event) => { if (event.key === "Escape" && event.target !== past.words) end(); };
  document.addEventListener("keydown", onKey);

  say("Loading…");
  drawChosen();
  const asked = decodeURIComponent(location.hash.split("?")[1] ?? "");
  let begun = false;
  const stopListing = poll(async () => {
    try {
      await past.relist();
    } catch (error) {
      if (!begun && error instanceof ApiError) say(error.status === 404 ? "This service keeps no conversations: it has no folder for its state." : error.message);
      throw error;
    }
    if (begun) return;
    begun = true;
    if (!turns.items.length) open(asked === "new" ? "" : asked || past.latest());
  }, LIST_MS);
  const stopWorkers = poll(async () => {
    workers = (await get("/roost/v1/workers")).data;
    if (!closed) drawWorkers();
  }, WORKERS_MS);
  question.focus();

  return () => {
    closed = true;
    view.onclick = null;
    clearTimeout(pending);
    unwatch();
    past.close();
    stopListing();
    stopWorkers();
    document.removeEventListener("keydown", onKey);
  };
}
