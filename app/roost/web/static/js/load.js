// What the service is doing now, and what it did in the last half hour.

import { get } from "./api.js";
import { lines } from "./charts.js";
import { figure, h, heading, number, pill, seconds, short, show, table } from "./dom.js";
import { poll } from "./poll.js";

const EVERY_MS = 2000;
const KEPT = 180;

export function loadPage(view) {
  const body = h("div", { class: "stack" });
  view.append(heading("Load", "The last half hour of this gateway, live."), body);
  let points = [];

  const rate = (point, name) => (point.seconds ? point[name] / point.seconds : 0);

  function meter(endpoint) {
    const most = endpoint.slots ?? Math.max(1, endpoint.in_flight);
    return [h("meter", { min: 0, max: most, high: most * 0.9, value: Math.min(most, endpoint.in_flight), "aria-label": `${endpoint.id}: slots at work` }),
      h("span", { class: "num" }, ` ${endpoint.in_flight} of ${endpoint.slots ?? "?"}`)];
  }

  function draw({ now, every_s: every }) {
    const times = points.map((point) => point.at);
    const series = (name, value) => ({ name, values: points.map(value) });
    const waiting = now.waiting === null ? null : series("waiting", (point) => point.waiting);
    const chart = (title, of, format) => h("section", { class: "card" }, h("h2", {}, title),
      points.length > 1 ? lines(title, times, of, format) : h("p", { class: "empty" }, `The first points come after ${number(2 * every)} s.`));
    const recent = points.slice(-6);
    const over = recent.reduce((sum, point) => sum + point.seconds, 0) || 1;
    const sum = (name) => recent.reduce((total, point) => total + point[name], 0);
    const first = recent.map((point) => point.first_token_s).filter((value) => value !== null);
    show(body,
      h("div", { class: "figures" },
        figure("Under way", number(now.in_flight), now.waiting === null ? null : `${number(now.waiting)} waiting`),
        figure("Requests", `${number(sum("requests") / over, 2)} /s`, `${number(sum("failed"))} failed in the last minute`),
        figure("Tokens out", `${short(sum("tokens_out") / over)} /s`, `${short(sum("tokens_in") / over)} /s in`),
        figure("First token", first.length ? seconds(first.at(-1)) : "–", "median of streams")),
      h("div", { class: "two" },
        chart("Tokens per second", [series("out", (point) => rate(point, "tokens_out")), series("in", (point) => rate(point, "tokens_in"))]),
        chart("Time to first token", [series("median", (point) => point.first_token_s), series("95 of 100", (point) => point.first_token_slow_s)], seconds),
        chart("Requests per second", [series("all", (point) => rate(point, "requests")), series("failed", (point) => rate(point, "failed"))]),
        chart("Requests under way", [series("at work", (point) => point.in_flight), waiting].filter(Boolean))),
      h("section", { class: "card" }, h("h2", {}, "Endpoints"),
        table("Load by endpoint", [
          ["Endpoint", (one) => h("code", {}, one.id)],
          ["State", (one) => pill(one.state)],
          ["Slots at work", meter],
          ["At work, last half hour", (one) => spark(one.id)],
        ], now.endpoints, "There is no endpoint.")));
  }

  function spark(id) {
    if (points.length < 2) return "–";
    return lines(`Requests at ${id}`, points.map((point) => point.at), [{ name: "at work", values: points.map((point) => point.endpoints[id] ?? null) }]);
  }

  return poll(async () => {
    const since = points.length ? points.at(-1).at : 0;
    const document = await get(`/roost/v1/load?since=${since}`);
    points = [...points, ...document.points].slice(-KEPT);
    draw(document);
  }, EVERY_MS);
}
