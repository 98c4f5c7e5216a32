// Watches one conversation over a WebSocket, for as long as it takes: who lost the connection goes on after the last
// event that was told, none twice and none left out.

import { ApiError, get, socket } from "./api.js";

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 15_000;
const QUIET = new Set(["accepted", "refused", "lagging", "stopping"]); // of the connection, not of the conversation

// `heard` gets each event, `state` whether it is connected, `gone` the error of a conversation that is not there.
export function watching(path, { heard, state, gone }) {
  let last = "";
  let failures = 0;
  let stopped = false;
  let timer = 0;
  let open = null;

  function connect() {
    open = socket(`${path}/events`, last ? { last_event_id: last } : { whole_turn: "true" });
    open.addEventListener("open", () => { failures = 0; state(true); });
    open.addEventListener("message", (message) => {
      if (stopped) return;
      const event = JSON.parse(message.data);
      last = event.event_id ?? last;
      if (event.type === "missed") last = "";
      if (event.type === "removed") { stopped = true; gone(new ApiError(404, {}, 0)); return; }
      if (!QUIET.has(event.type)) heard(event);
    });
    open.addEventListener("close", again);
  }

  async function again() {
    if (stopped) return;
    state(false);
    // A page is not told why it was refused: what the API says of the conversation does.
    try {
      await get(`${path}?limit=1`);
    } catch (error) {
      if (stopped) return;
      if (error instanceof ApiError && [401, 403, 404].includes(error.status)) { gone(error); return; }
    }
    if (stopped) return;
    const pause = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** failures) * (0.75 + Math.random() / 2);
    failures += 1;
    timer = setTimeout(connect, pause);
  }

  connect();
  return () => {
    stopped = true;
    clearTimeout(timer);
    open?.close();
  };
}
