// The keys and what is left of their limits; administrators only, and to look at only.

import { get } from "./api.js";
import { h, heading, number, pill, short, show, table } from "./dom.js";
import { poll } from "./poll.js";

const EVERY_MS = 5000;
const or = (limit, text = "no limit") => (limit ? short(limit) : text);

export function keysPage(view) {
  const body = h("div", { class: "stack" });
  const note = h("p", { class: "note" }, "Keys are made, changed and revoked with ", h("code", {}, "roost keys"), ", tiers with ", h("code", {}, "roost limits"), ".");
  view.append(heading("Keys", "Who may use the fleet, and how much of it is left."), note, body);

  const left = (key, what) => (key.limits[what] ? `${short(key.remaining[what])} of ${short(key.limits[what])}` : "no limit");
  const budget = (key) => {
    const parts = Object.entries(key.budget).map(([name, most]) => `${short(key.used[name] ?? 0)} of ${short(most)} ${name.replaceAll("_", " ")}`);
    return parts.length ? parts.join(", ") : "none";
  };

  return poll(async () => {
    const { tiers, keys } = await get("/v1/limits");
    show(body,
      h("section", { class: "card" }, h("h2", {}, "Keys"), table("Keys", [
        ["Name", (key) => [key.name, key.owner && h("span", { class: "note" }, ` ${key.owner}`)]],
        ["State", (key) => pill(key.state === "active" ? "ready" : "down", key.state)],
        ["Role", (key) => key.role],
        ["Tier", (key) => key.tier],
        ["Models", (key) => key.models.join(", ") || "all"],
        ["Requests left", (key) => left(key, "requests"), "num"],
        ["Tokens left", (key) => left(key, "tokens"), "num"],
        ["Running", (key) => (key.waiting ? `${key.running}, ${key.waiting} waiting` : number(key.running)), "num"],
        ["Budget used", budget],
        ["Expires", (key) => key.expires?.slice(0, 10) ?? "never"],
      ], keys, "There is no key.")),
      h("section", { class: "card" }, h("h2", {}, "Tiers"), table("Tiers", [
        ["Tier", (tier) => [tier.tier, tier.overridden && h("span", { class: "note" }, " overridden")]],
        ["Requests a minute", (tier) => or(tier.requests), "num"],
        ["Tokens a minute", (tier) => or(tier.tokens), "num"],
        ["At once", (tier) => or(tier.concurrent), "num"],
        ["May wait", (tier) => number(tier.waiting), "num"],
      ], tiers, "There is no tier.")));
  }, EVERY_MS);
}
