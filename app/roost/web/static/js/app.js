// Login, pages by the address's fragment, and the state that all of them show.

import { agentPage } from "./agent.js";
import { ApiError, UnreachableError, call, login, logout, session } from "./api.js";
import { chatPage, forgetChats } from "./chat.js";
import { decisionsPage } from "./decisions.js";
import { h, show, toast } from "./dom.js";
import { endpointsPage } from "./endpoints.js";
import { keysPage } from "./keys.js";
import { loadPage } from "./load.js";
import { modelsPage } from "./models.js";
import { poll } from "./poll.js";
import { usagePage } from "./usage.js";

const $ = (id) => document.getElementById(id);
const READY_MS = 5000;
const SESSION_MS = 600_000;
const ALL = ["admin", "user", "read-only"];
const PAGES = {
  chat: { title: "Chat", draw: chatPage, roles: ["admin", "user"] },
  agent: { title: "Agent", draw: agentPage, roles: ["admin", "user"] },
  models: { title: "Models", draw: modelsPage, roles: ALL },
  endpoints: { title: "Endpoints", draw: endpointsPage, roles: ["admin", "read-only"] },
  load: { title: "Load", draw: loadPage, roles: ["admin", "read-only"] },
  decisions: { title: "Routing", draw: decisionsPage, roles: ["admin", "read-only"] },
  usage: { title: "Usage", draw: usagePage, roles: ALL },
  keys: { title: "Keys", draw: keysPage, roles: ["admin"] },
};

let me = null; // the key that is logged in
let leave = () => {}; // ends what the present page does beside
let stopSession = () => {};

// --- Pages -----------------------------------------------------------------------------------------------------

const mine = () => Object.keys(PAGES).filter((name) => PAGES[name].roles.includes(me.role));

function drawNav(current) {
  const link = (name) =>
    h("a", { href: `#/${name}`, "aria-current": name === current ? "page" : null }, PAGES[name].title);
  show($("nav"), h("ul", {}, mine().map((name) => h("li", {}, link(name)))));
  $("nav").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function route() {
  leave();
  leave = () => {};
  const view = $("view");
  if (!me) return drawLogin(view);
  const asked = location.hash.replace(/^#\/?/, "").split("?")[0];
  const name = mine().includes(asked) ? asked : mine()[0];
  if (asked && asked in PAGES && name !== asked) toast(`A key with the role ${me.role} has no page “${PAGES[asked].title}”.`, "bad");
  if (asked !== name) history.replaceState(null, "", `#/${name}`);
  document.title = `${PAGES[name].title} · Roost`;
  drawNav(name);
  view.className = `view ${name}`;
  view.replaceChildren();
  leave = PAGES[name].draw(view, me) ?? (() => {});
  return undefined;
}

function enter(key) {
  me = key;
  $("nav").hidden = false;
  $("account").hidden = false;
  $("who").textContent = key.name;
  $("role").textContent = `Role ${key.role}${key.expires ? `, good until ${key.expires.slice(0, 10)}` : ""}`;
  // A session that is used lasts longer; one whose key is gone ends here, whatever page is open.
  stopSession = poll(async () => {
    const now = await session();
    if (!now) expelled();
    else if (now.role !== me.role) { me = now; route(); }
  }, SESSION_MS);
  route();
}

function expelled(why = "You are logged out. The session is over, or its key is no longer good.") {
  if (!me) return;
  me = null;
  stopSession();
  $("account").open = false;
  $("account").hidden = true;
  $("nav").hidden = true;
  route();
  const error = $("login-error");
  error.textContent = why;
  error.hidden = !why;
}

// --- Login -----------------------------------------------------------------------------------------------------

function drawLogin(view) {
  document.title = "Log in · Roost";
  view.className = "view login";
  const error = h("p", { id: "login-error", class: "error", role: "alert", hidden: true });
  const input = h("input", { id: "key", name: "key", type: "password", required: true, autocomplete: "current-password",
    spellcheck: "false", autocapitalize: "none", placeholder: "roost-…", "aria-describedby": "login-note login-error" });
  const button = h("button", { class: "strong", type: "submit" }, "Log in");
  const card = h("form", { class: "card" },
    h("img", { src: "/web/icon.svg", alt: "", width: "56", height: "56" }),
    h("h1", {}, "Welcome to Roost"),
    h("p", { class: "note", id: "login-note" },
      "Log in with an API key. The page keeps a session, never the key itself."),
    h("label", { for: "key" }, "API key"),
    h("div", { class: "row" }, input, button),
    error,
    h("p", { class: "note" }, "The first key lies in ", h("code", {}, "/etc/roost/secrets/api-key"),
      "; an administrator makes others with ", h("code", {}, "roost keys add NAME"), "."));
  card.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    error.hidden = true;
    try {
      const key = await login(input.value.trim());
      input.value = "";
      enter(key);
    } catch (problem) {
      const wrong = problem instanceof ApiError && problem.status === 401;
      const later = problem.retryAfter ? ` Try again in ${problem.retryAfter} s.` : "";
      error.textContent = wrong && problem.code !== "expired_api_key" ? "This key is not accepted." : problem.message + (problem.message.includes("Try again") ? "" : later);
      error.hidden = false;
      input.select();
    } finally {
      button.disabled = false;
    }
  });
  view.replaceChildren(card);
  input.focus();
}

async function leaveSession(everywhere) {
  try {
    await logout(everywhere);
  } catch (problem) {
    toast(problem.message, "bad");
    return;
  }
  forgetChats(me.name);
  expelled("");
  toast(everywhere ? "Logged out on every device." : "Logged out.");
}

// --- Connection ------------------------------------------------------------------------------------------------

function drawReadiness(state, text, title) {
  const pill = $("readiness");
  pill.dataset.state = state;
  pill.title = title;
  if (pill.textContent !== text) pill.textContent = text;
}

async function readiness() {
  let answer;
  try {
    answer = await call("/readyz", { anyStatus: true });
  } catch (error) {
    drawReadiness("down", "not reachable", "The service does not answer.");
    throw error;
  }
  const state = await answer.json();
  if (state.slots === undefined) throw new UnreachableError(); // a hub whose gateways are all gone
  const loading = Object.values(state.slots).some((slot) => slot.loading > 0);
  if (state.ready) drawReadiness("ready", "ready", state.reasons.join("\n"));
  else drawReadiness(loading ? "loading" : "down", loading ? "loading" : "no model", state.reasons.join("\n"));
}

let hideBanner = 0;
window.addEventListener("roost:connection", (event) => {
  clearTimeout(hideBanner);
  const banner = $("banner");
  banner.hidden = false;
  banner.dataset.kind = event.detail.lost ? "bad" : "good";
  banner.textContent = event.detail.lost ? "The service does not answer. The page tries again by itself." : "Connected again.";
  if (event.detail.lost) drawReadiness("down", "not reachable", "The service does not answer.");
  else hideBanner = setTimeout(() => { banner.hidden = true; }, 3000);
});

// --- Start -----------------------------------------------------------------------------------------------------

window.addEventListener("roost:logged-out", () => expelled());
window.addEventListener("hashchange", () => { route(); $("view").focus(); });
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which page is shown, not which part of it
  $("view").focus();
});
$("logout").addEventListener("click", () => leaveSession(false));
$("logout-all").addEventListener("click", () => leaveSession(true));
document.addEventListener("click", (event) => { if (!$("account").contains(event.target)) $("account").open = false; });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") $("account").open = false; });

const stopWaiting = poll(async () => {
  const key = await session();
  stopWaiting();
  if (key) enter(key);
  else route();
}, 1000);
poll(readiness, READY_MS);

