// The conversations that the service keeps for a key: listed, found by their words, named, put away, removed.

import { call, get } from "./api.js";
import { confirmed, h, show, toast } from "./dom.js";

export const PATH = "/roost/v1/sessions";
const SEARCH_MS = 250; // after the last letter
const HITS = 50;
const UNTITLED = "New conversation";

export const placeOf = (id) => `${PATH}/${encodeURIComponent(id)}`;

const titleOf = (one) => one.title || UNTITLED;

// `open(id)` shows a conversation; an empty id is a new one. `changed()` is told when the open one's title or place is another.
export function conversations({ open, changed }) {
  let id = "";
  let away = false; // whether those that were put away are listed
  let listed = [];
  let hits = null;
  let about = null; // of the open one
  let waiting = 0;
  let closed = false;

  const list = h("ul", { id: "agent-list", class: "chats" });
  const words = h("input", { id: "find", type: "search", placeholder: "Search", "aria-label": "Search conversations", maxlength: "500" });
  const shelf = h("button", { id: "shelf", class: "quiet small", type: "button", "aria-pressed": "false" }, "Those put away");
  const pick = h("select", { id: "pick" });
  const title = h("input", { id: "title", maxlength: "200", autocomplete: "off" });
  const naming = h("form", { id: "naming", class: "naming" },
    h("label", { for: "title" }, "Title"), title, h("button", { class: "small", type: "submit" }, "Rename"));
  const put = h("button", { id: "put-away", class: "small", type: "button" });
  const save = h("a", { id: "export", download: "" }, "Export");
  const settings = h("div", { hidden: true }, naming, h("div", { class: "naming" }, put, save));

  function row(one, note) {
    return h("li", {},
      h("button", { class: "quiet past-one", type: "button", "data-open": one.id, "aria-current": one.id === id ? "true" : null },
        titleOf(one), note && h("small", { class: "note" }, note)),
      !note && h("button", { class: "quiet small", type: "button", "data-drop": one.id, "aria-label": `Remove “${titleOf(one)}”`, title: "Remove" }, "×"));
  }

  function draw() {
    const rows = hits ? hits.map((hit) => row({ id: hit.session, title: hit.title }, hit.snippet)) : listed.map((one) => row(one));
    const none = hits ? "Nothing was found." : away ? "Nothing was put away." : "Kept by the service, for this key only.";
    show(list, rows.length ? rows : h("li", { class: "note" }, none));
    shelf.setAttribute("aria-pressed", String(away));
    const others = [
      !id && { id: "", title: UNTITLED },
      id && about && !listed.some((one) => one.id === id) && about,
      ...listed,
    ].filter(Boolean);
    pick.replaceChildren(...others.map((one) => new Option(titleOf(one), one.id)));
    pick.value = id;
    settings.hidden = !about;
    if (about) {
      put.textContent = about.archived ? "Take back" : "Put away";
      save.href = `${placeOf(about.id)}/export`;
      if (document.activeElement !== title) title.value = about.title;
    }
  }

  async function relist() {
    const asked = away;
    const found = (await get(`${PATH}?archived=${asked}`)).data;
    if (closed || away !== asked) return;
    listed = found.toSorted((one, other) => (one.updated < other.updated ? 1 : -1));
    const mine = listed.find((one) => one.id === id);
    if (mine) about = mine;
    draw();
    if (mine) changed();
  }

  async function find() {
    const q = words.value.trim();
    let found = null;
    if (q) {
      found = (await get(`${PATH}/search?limit=${HITS}&q=${encodeURIComponent(q)}`)).data;
      if (closed || words.value.trim() !== q) return;
    }
    hits = found;
    draw();
  }

  async function change(what) {
    const from = id;
    const now = await (await call(placeOf(from), { method: "PATCH", json: what })).json();
    if (closed) return;
    if (id === from) about = now;
    await relist();
    changed();
  }

  async function drop(gone) {
    const one = listed.find((each) => each.id === gone);
    if (!one || !(await confirmed("Remove this conversation?", `“${titleOf(one)}” is removed for good.`, "Remove"))) return;
    if (id === gone) open("");
    await call(placeOf(gone), { method: "DELETE" });
    await relist();
  }

  const told = (work) => work.catch((error) => { if (!closed) toast(error.message, "bad"); });

  list.addEventListener("click", (event) => {
    const at = event.target.closest("button");
    if (at?.dataset.open) open(at.dataset.open);
    else if (at?.dataset.drop) told(drop(at.dataset.drop));
  });
  pick.addEventListener("change", () => open(pick.value));
  words.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => told(find()), SEARCH_MS);
  });
  shelf.addEventListener("click", () => { away = !away; listed = []; draw(); told(relist()); });
  naming.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = title.value.trim();
    if (name && name !== about?.title) told(change({ title: name }));
  });
  put.addEventListener("click", () => told(change({ archived: !about.archived })));

  return {
    list, words, shelf, pick, settings, relist,
    title: () => about?.title || (id ? "Agent" : UNTITLED),
    latest: () => listed[0]?.id ?? "",
    // Which one is open now; what is known of it comes by `know`, or with the list.
    opened(next) { id = next; about = listed.find((one) => one.id === id) ?? null; draw(); },
    know(one) { if (one.id === id) { about = one; draw(); } },
    close() { closed = true; clearTimeout(waiting); },
  };
}
