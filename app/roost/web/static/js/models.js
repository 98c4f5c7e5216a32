// The models that the fleet serves, or could.

import { ApiError, call, get } from "./api.js";
import { figure, gib, h, heading, number, pill, show, toast } from "./dom.js";
import { poll } from "./poll.js";

const EVERY_MS = 3000;

export function modelsPage(view, me) {
  const body = h("div", { class: "stack" });
  view.append(heading("Models", "What the fleet serves. A cold model starts when it is asked for."), body);
  const mayUse = me.role !== "read-only";
  const starting = new Set();

  function card(model) {
    const about = model.roost;
    const rows = [
      ["Serves", [about.slot, ...about.aliases.filter((name) => name !== about.slot)].join(", ")],
      ["Tier", about.tier ?? "–"],
      ["Context", about.context ? `${number(about.context)} tokens` : "–"],
      ["At work", `${about.in_flight} of ${about.parallel}`],
      ["Memory", gib(about.memory)],
      ["Can", about.can?.join(", ") ?? "–"],
      about.adapters.length ? ["Adapters", about.adapters.join(", ")] : null,
      about.stands_in?.length ? ["Stands in", about.stands_in.join(", then ")] : null,
    ].filter(Boolean);
    const startable = mayUse && about.state === "cold" && (!about.can || about.can.includes("generate"));
    const name = `model-${model.id}`;
    return h("article", { class: "card", "aria-labelledby": name },
      h("div", { class: "card-top" }, h("h2", { id: name }, model.id), pill(about.state)),
      about.reason && h("p", { class: "note" }, about.reason),
      h("dl", {}, rows.map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)])),
      h("details", {}, h("summary", {}, about.endpoints.length === 1 ? "1 endpoint" : `${about.endpoints.length} endpoints`),
        h("ul", { class: "plain" }, about.endpoints.map((one) =>
          h("li", {}, pill(one.state), " ", h("code", {}, one.id), one.reason && h("span", { class: "note" }, ` ${one.reason}`))))),
      startable && h("button", { type: "button", class: "quiet", "data-start": model.id, disabled: starting.has(model.id) },
        starting.has(model.id) ? "Starting…" : "Start"));
  }

  function draw(models) {
    const count = (state) => models.filter((model) => model.roost.state === state).length;
    show(body,
      h("div", { class: "figures" },
        figure("Warm", number(count("ready"))), figure("Cold", number(count("cold"))),
        figure("Loading", number(count("loading"))), figure("Down", number(count("down")))),
      models.length ? h("div", { class: "cards" }, models.map(card))
        : h("p", { class: "empty" }, "There is no model that this key may use."));
  }

  // A model is started by the first request for it: so this is one, of a single token, that nothing else may answer.
  async function start(name) {
    starting.add(name);
    stop.now();
    try {
      await call("/v1/chat/completions", {
        method: "POST",
        headers: { "X-Roost-Fallback": "never" },
        json: { model: name, max_tokens: 1, messages: [{ role: "user", content: "Hi" }] },
      });
      toast(`${name} is warm.`);
    } catch (error) {
      toast(error instanceof ApiError ? error.message : "The service cannot be reached.", "bad");
    } finally {
      starting.delete(name);
      stop.now();
    }
  }

  view.addEventListener("click", (event) => {
    const button = event.target.closest("[data-start]");
    if (button) start(button.dataset.start);
  });
  const stop = poll(async () => draw((await get("/v1/models")).data), EVERY_MS);
  return stop;
}
