// The public API, reached with the session's cookie. No key is ever held here.

let form = ""; // what proves to the service that a change comes from this page

export class ApiError extends Error {
  constructor(status, body, retryAfter) {
    super(body.error?.message ?? `The service answered ${status}.`);
    this.status = status;
    this.code = body.error?.code ?? "";
    this.retryAfter = retryAfter;
  }
}

export class UnreachableError extends Error {
  constructor() {
    super("The service cannot be reached.");
  }
}

export async function call(path, options = {}) {
  const method = options.method ?? "GET";
  const headers = { ...options.headers };
  if (method !== "GET") headers["X-Roost-Form"] = form;
  if (options.json !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers,
      body: options.json === undefined ? undefined : JSON.stringify(options.json),
      signal: options.signal,
      cache: "no-store",
      credentials: "same-origin",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new UnreachableError();
  }
  if (answer.ok || options.anyStatus) return answer;
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401 && !options.login) window.dispatchEvent(new CustomEvent("roost:logged-out"));
  throw new ApiError(answer.status, body, Number(answer.headers.get("retry-after")) || 0);
}

export const get = async (path, options) => (await call(path, options)).json();

// Yields the JSON of each server-sent event; ends at [DONE], and fails if that never comes.
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The connection broke off in the middle of the answer.");
    }
    if (part.done) throw new Error("The answer broke off before its end.");
    const lines = (rest + part.value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(502, event, 0);
      yield event;
    }
  }
}

// Opens a WebSocket of the API. A page cannot set headers there: the form token is offered as a subprotocol.
export function socket(path, query) {
  const address = new URL(path, location.href);
  address.protocol = address.protocol.replace("http", "ws");
  address.search = new URLSearchParams(query).toString();
  return new WebSocket(address, ["roost.events", `form.${form}`]);
}

// --- Session ---------------------------------------------------------------------------------------------------

function taken(document) {
  form = document.session?.form ?? "";
  return document.session?.key ?? null;
}

// Returns the key that is logged in, or null.
export const session = async () => taken(await get("/web/session"));

export async function login(key) {
  return taken(await (await call("/web/session", { method: "POST", json: { key }, login: true })).json());
}

export async function logout(everywhere) {
  await call(`/web/session${everywhere ? "?all=1" : ""}`, { method: "DELETE", login: true });
  form = "";
}
