// Conversations in this browser, one entry each; of one key another key sees nothing.

const PREFIX = "roost.chat.";
const MOST = 50;

const place = (owner, id = "") => `${PREFIX}${owner}.${id}`;

export function loadChats(owner) {
  const found = [];
  for (let n = 0; n < localStorage.length; n += 1) {
    const name = localStorage.key(n);
    if (!name.startsWith(place(owner))) continue;
    try {
      const chat = JSON.parse(localStorage.getItem(name));
      if (name === place(owner, chat.id) && Array.isArray(chat.messages)) found.push(chat);
    } catch {
      localStorage.removeItem(name); // nobody could read it
    }
  }
  return found.sort((one, other) => other.at - one.at);
}

// Keeps a conversation; where there is no more room the oldest ones go. Returns whether it is kept.
export function keepChat(owner, chat) {
  const old = loadChats(owner).filter((other) => other.id !== chat.id);
  for (const gone of old.splice(MOST - 1)) dropChat(owner, gone.id);
  const text = JSON.stringify(chat);
  for (;;) {
    try {
      localStorage.setItem(place(owner, chat.id), text);
      return true;
    } catch {
      const oldest = old.pop();
      if (!oldest) return false;
      dropChat(owner, oldest.id);
    }
  }
}

export function dropChat(owner, id) {
  localStorage.removeItem(place(owner, id));
}

export function forgetChats(owner) {
  for (const chat of loadChats(owner)) dropChat(owner, chat.id);
}

export function newChat(like = {}) {
  return {
    id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random().toString(36).slice(2)}`,
    at: Date.now(),
    title: "",
    model: like.model ?? "auto",
    system: like.system ?? "You are a helpful assistant.",
    temperature: like.temperature ?? "",
    messages: [],
  };
}
