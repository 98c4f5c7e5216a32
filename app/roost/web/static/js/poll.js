// Asks again and again; more and more rarely while the service does not answer, never while nobody looks.

import { ApiError, UnreachableError } from "./api.js";

const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 15_000;
const offline = new Set();

function tell(source, lost) {
  const before = offline.size > 0;
  if (lost) offline.add(source);
  else offline.delete(source);
  const after = offline.size > 0;
  if (before !== after) window.dispatchEvent(new CustomEvent("roost:connection", { detail: { lost: after } }));
}

// Runs `work` now and then every `everyMs`; returns what ends it.
export function poll(work, everyMs) {
  let timer = 0;
  let failures = 0;
  let stopped = false;
  let running = false;
  const source = {};

  async function turn() {
    clearTimeout(timer);
    if (stopped || running || document.hidden) return;
    running = true;
    let pause = everyMs;
    try {
      await work();
      failures = 0;
      tell(source, false);
    } catch (error) {
      // What the service refuses it will refuse again; asking goes on, since an administrator may change it.
      const refused = error instanceof ApiError && error.status < 500 && error.status !== 429;
      if (!refused) {
        pause = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** failures) * (0.75 + Math.random() / 2);
        failures += 1;
      }
      if (error instanceof ApiError && error.retryAfter) pause = Math.max(pause, error.retryAfter * 1000);
      if (error instanceof UnreachableError) tell(source, true);
      else if (!(error instanceof ApiError)) console.error(error);
    } finally {
      running = false;
    }
    if (!stopped) timer = setTimeout(turn, pause);
  }

  const again = () => { if (!document.hidden) turn(); };
  document.addEventListener("visibilitychange", again);
  window.addEventListener("online", again);
  turn();
  const stop = () => {
    stopped = true;
    clearTimeout(timer);
    tell(source, false);
    document.removeEventListener("visibilitychange", again);
    window.removeEventListener("online", again);
  };
  stop.now = turn;
  return stop;
}
