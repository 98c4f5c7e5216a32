// What was used: by day, model and key.

import { get } from "./api.js";
import { bars } from "./charts.js";
import { figure, h, heading, number, seconds, short, show, table } from "./dom.js";
import { poll } from "./poll.js";

const EVERY_MS = 15_000;
const DAY_MS = 86_400_000;
const day = (time) => new Date(time).toISOString().slice(0, 10);

export function usagePage(view, me) {
  const span = h("select", { id: "span" }, [["7", "7 days"], ["30", "30 days"], ["90", "90 days"]].map(([value, text]) => h("option", { value }, text)));
  const body = h("div", { class: "stack" });
  const whose = me.role === "admin" ? "Of all keys, in UTC days." : "Of your key, in UTC days.";
  view.append(heading("Usage", whose, h("label", { for: "span" }, "Last"), span), body);

  const money = (row, currency) => (row.cost ? `${number(row.cost, 4)} ${currency}`.trim() : "–");
  const columns = (title, name, currency) => [
    [title, (row) => row[name]],
    ["Requests", (row) => number(row.requests), "num"],
    ["Failed", (row) => number(row.failed), "num"],
    ["Tokens in", (row) => short(row.prompt_tokens), "num"],
    ["Cached", (row) => short(row.cached_tokens), "num"],
    ["Tokens out", (row) => short(row.completion_tokens), "num"],
    ["Engine time", (row) => seconds(row.engine_seconds), "num"],
    ["Energy", (row) => (row.energy_wh ? `${number(row.energy_wh, 2)} Wh` : "–"), "num"],
    ["Cost", (row) => money(row, currency), "num"],
  ];
  const sum = (rows, name) => rows.reduce((total, row) => total + row[name], 0);

  async function draw() {
    const days = Number(span.value);
    const since = day(Date.now() - (days - 1) * DAY_MS);
    const [byDay, byModel, byKey] = await Promise.all(["day", "model", "key"].map((by) => get(`/v1/usage?by=${by}&since=${since}`)));
    const currency = byDay.currency;
    const found = new Map(byDay.data.map((row) => [row.day, row]));
    const points = Array.from({ length: days }, (_, n) => {
      const name = day(Date.now() - (days - 1 - n) * DAY_MS);
      return { name, parts: [found.get(name)?.prompt_tokens ?? 0, found.get(name)?.completion_tokens ?? 0] };
    });
    const biggest = (rows) => [...rows].sort((one, other) => other.requests - one.requests);
    show(body,
      h("div", { class: "figures" },
        figure("Requests", short(sum(byDay.data, "requests")), `${number(sum(byDay.data, "failed"))} failed`),
        figure("Tokens in", short(sum(byDay.data, "prompt_tokens")), `${short(sum(byDay.data, "cached_tokens"))} from the cache`),
        figure("Tokens out", short(sum(byDay.data, "completion_tokens"))),
        figure("Cost", money({ cost: sum(byDay.data, "cost") }, currency))),
      h("section", { class: "card" }, h("h2", {}, "Tokens per day"), bars("Tokens per day", ["in", "out"], points)),
      h("section", { class: "card" }, h("h2", {}, "Models"), table("Usage by model", columns("Model", "model", currency), biggest(byModel.data), "Nothing was used yet.")),
      h("section", { class: "card" }, h("h2", {}, "Keys"), table("Usage by key", columns("Key", "key", currency), biggest(byKey.data), "Nothing was used yet.")));
  }

  const stop = poll(draw, EVERY_MS);
  span.addEventListener("change", () => stop.now());
  return stop;
}
