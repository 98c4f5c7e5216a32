// The model servers behind the API: what they are and do, and for administrators what is to be done with them.

import { call, get } from "./api.js";
import { confirmed, figure, gib, h, heading, number, pill, show, table, toast } from "./dom.js";
import { poll } from "./poll.js";

const EVERY_MS = 2000;
const PATH = "/roost/v1/endpoints";
const ENGINES = ["llama.cpp", "llama-cpp-python", "ollama", "lmstudio", "vllm", "openai", "anthropic"];

export function endpointsPage(view, me) {
  const admin = me.role === "admin";
  const body = h("div", { class: "stack" });
  const adder = h("button", { id: "add", class: "strong", type: "button", "aria-expanded": "false", "aria-controls": "add-form" }, "Add an endpoint");
  const form = addForm();
  view.append(heading("Endpoints", "The model servers behind the API, as this gateway's own probes find them.", admin && adder), form, body);

  function draw(rows) {
    const count = (...states) => rows.filter((one) => states.includes(one.state)).length;
    show(body,
      h("div", { class: "figures" },
        figure("Ready", number(count("ready"))), figure("Loading", number(count("loading"))), figure("Cold", number(count("cold"))),
        figure("Down", number(count("down", "gone"))), admin && figure("Drained", number(rows.filter((one) => one.drained).length))),
      h("section", { class: "card" }, table("Endpoints", columns(), rows, "There is no endpoint.")));
  }

  function columns() {
    const always = [
      ["Endpoint", (one) => [h("code", {}, one.name ?? one.id), one.source && h("div", { class: "note" }, `${one.engine}, ${words(one.source)}`)]],
      ["State", (one) => [pill(one.drained ? "draining" : one.state, one.drained ? "drained" : one.state), why(one)]],
      ["Models", (one) => h("ul", {}, (one.models ?? []).map((model) =>
        h("li", {}, model.id, model.quantisation && h("span", { class: "note" }, ` ${model.quantisation}`))))],
      ["Slot", (one) => one.slot ?? "–"],
      ["At work", (one) => (one.in_flight === undefined ? "–" : `${one.in_flight} of ${one.parallel ?? "?"}`), "num"],
      ["Waiting", (one) => number(one.load?.waiting ?? Number.NaN), "num"],
      ["Context", (one) => (one.context ? number(one.context) : "–"), "num"],
    ];
    if (!admin) return always.filter(([title]) => title !== "Waiting");
    return [...always,
      ["Host", (one) => (one.host ? host(one.host) : "–")],
      ["Actions", actions],
    ];
  }

  function actions(one) {
    if (!one.name) return "–";
    const button = (verb, text) => h("button", { class: "quiet small", type: "button", "data-verb": verb, "data-name": one.name, "aria-label": `${text} ${one.name}` }, text);
    return h("div", { class: "tools" },
      one.drained ? button("undrain", "Undrain") : button("drain", "Drain"),
      one.state !== "gone" && button("test", "Test"),
      (one.added || one.state === "gone") && button("remove", "Remove"));
  }

  async function act(verb, name) {
    const place = `${PATH}/${encodeURIComponent(name)}`;
    if (verb === "remove" && !(await confirmed("Remove this endpoint?", `${name} gets no more requests, and is forgotten.`, "Remove"))) return;
    try {
      if (verb === "remove") await call(place, { method: "DELETE" });
      else {
        const said = await (await call(`${place}/${verb}`, { method: "POST", json: {} })).json();
        if (verb === "test") toast(tested(name, said), said.ok ? "good" : "bad");
      }
      if (verb === "drain") toast(`${name} gets no new requests; what it works on goes on.`);
      if (verb === "undrain") toast(`${name} gets requests again.`);
      if (verb === "remove") toast(`${name} is forgotten.`);
    } catch (error) {
      toast(error.message, "bad");
    }
    stop.now();
  }

  view.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button === adder) {
      form.hidden = !form.hidden;
      adder.setAttribute("aria-expanded", String(!form.hidden));
      if (!form.hidden) form.querySelector("input").focus();
    } else if (button?.dataset.verb) act(button.dataset.verb, button.dataset.name);
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const error = form.querySelector(".error");
    const value = (name) => form.querySelector(`[name=${name}]`).value.trim();
    const fields = { name: value("name"), url: value("url"), allow_http: form.querySelector("[name=allow_http]").checked };
    for (const name of ["engine", "slot", "key"]) if (value(name)) fields[name] = value(name);
    error.hidden = true;
    try {
      await call(PATH, { method: "POST", json: fields });
      toast(`${fields.name} is added.`);
      form.reset();
      form.hidden = true;
      adder.setAttribute("aria-expanded", "false");
      adder.focus();
    } catch (problem) {
      error.textContent = problem.message;
      error.hidden = false;
    }
    stop.now();
  });

  const stop = poll(async () => draw(admin ? (await get(PATH)).data : await seenByWatchers()), EVERY_MS);
  return stop;
}

const words = (source) => source.replaceAll("-", " ").replaceAll("_", " ");

function why(one) {
  const parts = [one.reason, one.ejected && `set aside for ${number(one.ejected.for_s)} s: ${one.ejected.reason}`].filter(Boolean);
  return parts.length ? h("div", { class: "note" }, parts.join("; ")) : null;
}

function host(use) {
  const parts = [
    Number.isFinite(use.cpu) ? `CPU ${number(100 * use.cpu)} %` : null,
    use.ram_used ? `RAM ${gib(use.ram_used)} of ${gib(use.ram_total)}` : null,
    use.vram_used ? `VRAM ${gib(use.vram_used)} of ${gib(use.vram_total)}` : null,
  ].filter(Boolean);
  return [use.name, h("div", { class: "note" }, parts.join(", "))];
}

function tested(name, said) {
  if (!said.ok) return `${name}: ${said.reason || said.state}.`;
  return said.answered ? `${name} answered with ${said.model} after ${number(said.answer_ms)} ms.` : `${name} is ${said.state}.`;
}

// The list for administrators holds addresses; others see what the models and the load say.
async function seenByWatchers() {
  const [load, models] = await Promise.all([get("/roost/v1/load"), get("/v1/models")]);
  const rows = load.now.endpoints.map((one) => ({ ...one, parallel: one.slots, models: [] }));
  for (const model of models.data) {
    for (const row of rows) {
      const here = model.roost.endpoints.find((one) => one.id === row.id);
      if (!here) continue;
      row.models.push(model);
      row.reason = here.reason;
      row.context = model.roost.context;
    }
  }
  return rows;
}

function addForm() {
  const field = (name, text, note, more = {}) => h("div", {}, h("label", { for: `add-${name}` }, text),
    h("input", { id: `add-${name}`, name, autocomplete: "off", spellcheck: "false", ...more }), note && h("p", { class: "note" }, note));
  return h("form", { id: "add-form", class: "card fields", hidden: true, "aria-label": "Add an endpoint" },
    field("name", "Name", null, { required: true, placeholder: "workstation" }),
    field("url", "Base URL", null, { required: true, type: "url", placeholder: "https://192.0.2.7:8080" }),
    h("div", {}, h("label", { for: "add-engine" }, "Engine"),
      h("select", { id: "add-engine", name: "engine" }, h("option", { value: "" }, "found out by asking"), ENGINES.map((name) => h("option", { value: name }, name)))),
    field("slot", "Slot", "Empty: reached by its own name only."),
    field("key", "Its API key", "Kept where endpoints are, shown to nobody.", { type: "password", autocomplete: "new-password" }),
    h("div", {}, h("label", { class: "check" }, h("input", { type: "checkbox", name: "allow_http" }), " Without TLS, beyond this machine")),
    h("p", { class: "error", role: "alert", hidden: true }),
    h("div", { class: "tools" }, h("button", { class: "strong", type: "submit" }, "Add")));
}
