// Which model was chosen for `auto`, and why; and what would be chosen for a text.

import { ApiError, call, get } from "./api.js";
import { ago, clock, h, heading, number, pill, show, table } from "./dom.js";
import { poll } from "./poll.js";

const EVERY_MS = 3000;
const SHOWN = 100;

export function decisionsPage(view, me) {
  const body = h("div", { class: "stack" });
  const answer = h("div", { "aria-live": "polite" });
  view.append(heading("Routing", "Which model was chosen, and why. What people wrote is not kept."));
  if (me.role !== "read-only") view.append(tryCard(answer));
  view.append(body);

  return poll(async () => {
    let decisions;
    try {
      decisions = (await get(`/roost/v1/decisions?limit=${SHOWN}`)).data;
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
      show(body, h("p", { class: "empty" }, "This gateway keeps no decisions."));
      return;
    }
    show(body, h("section", { class: "card" }, h("h2", {}, "Last decisions"),
      table("Last decisions", [
        ["When", (one) => h("time", { datetime: new Date(one.at * 1000).toISOString(), title: ago(one.at * 1000) }, clock(one.at * 1000))],
        ["Chosen", (one) => [one.model ?? "none", one.slot && h("span", { class: "note" }, ` ${one.slot}`)]],
        ["Reason", (one) => one.reason.replaceAll("_", " ")],
        ["Level", (one) => [pill(one.level), h("span", { class: "note" }, ` ${number(one.points)} points`)]],
        ["Answered by", (one) => [one.answered_by ?? "–", one.cascade.length > 0 && h("span", { class: "note" }, ` after ${one.cascade.length} that did not do`)]],
        ["Status", (one) => one.status ?? "under way", "num"],
        ["Key", (one) => one.key],
        ["Took", (one) => `${number(one.took_ms, 2)} ms`, "num"],
        ["Among", (one) => h("details", {}, h("summary", {}, `${one.candidates.length} candidates`), candidates(one))],
      ], decisions, "Nothing was decided yet. Requests for the model “auto” come here.")));
  }, EVERY_MS);
}

function candidates(one) {
  const guess = Object.entries(one.probabilities ?? {}).map(([name, value]) => `${name} ${number(100 * value)} %`).join(", ");
  return [
    h("ul", { class: "plain" }, one.candidates.map((each) =>
      h("li", {}, pill(each.ready ? "ready" : "cold", each.ready ? "warm" : "cold"), ` ${each.model} `,
        h("span", { class: "note" }, each.why_not ? `not: ${each.why_not}` : each.slot)))),
    guess && h("p", { class: "note" }, `Subject: ${guess}${one.sure ? "" : ", not sure"}`),
  ];
}

function tryCard(answer) {
  const text = h("input", { id: "try", type: "text", placeholder: "Write a function that sorts a list", maxlength: "4000" });
  const form = h("form", { class: "card" }, h("h2", {}, "What would be chosen?"),
    h("div", { class: "row" }, h("label", { class: "visually-hidden", for: "try" }, "A question"), text, h("button", { class: "strong", type: "submit" }, "Explain")),
    answer);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!text.value.trim()) return;
    try {
      const found = await (await call("/roost/v1/explain", { method: "POST", json: { model: "auto", messages: [{ role: "user", content: text.value }] } })).json();
      show(answer,
        h("p", {}, h("strong", {}, found.model ?? "no model"), ` in the slot ${found.slot}: ${found.reason.replaceAll("_", " ")}.`),
        h("p", { class: "note" }, `${found.level}, ${number(found.points)} points`,
          Object.keys(found.points_for ?? {}).length ? ` for ${Object.entries(found.points_for).map(([name, value]) => `${name.replaceAll("_", " ")} ${number(value)}`).join(", ")}` : ""),
        candidates(found));
    } catch (error) {
      show(answer, h("p", { class: "error" }, error.message));
    }
  });
  return form;
}
