// The HTTP API of this node, as the page asks it: by the cookie of the login, and a header that only our own page sends.

const OF_PAGE = { "Hiroba-Admin": "1" };

// The node's clock less ours, ms: whoever sits here may have another time. An answer says it in whole seconds.
let offset = 0;

// Unix ms, as the node has it.
export function now() {
  return Date.now() + offset;
}

// What was not done, and why: RFC 9457.
export class Problem extends Error {
  constructor(status, { detail = "", code = "" } = {}) {
    super(detail || `HTTP ${status}`);
    this.status = status;
    this.code = code;
  }
}

// Parts of a path, each whatever it holds.
export function path(...parts) {
  return `/${parts.map(encodeURIComponent).join("/")}`;
}

export function get(where) {
  return asked(`/api/v1${where}`, { headers: OF_PAGE });
}

// Asked once more where the answer did not come: the key sees to it that it is done once.
export async function post(where, body) {
  return twice(`/api/v1${where}`, written("POST", body));
}

export async function remove(where) {
  return twice(`/api/v1${where}`, written("DELETE"));
}

export function session() {
  return asked("/admin/session", { headers: OF_PAGE });
}

export function logIn(key) {
  return asked("/admin/session", written("POST", { key }));
}

export function logOut() {
  return asked("/admin/session", { method: "DELETE", headers: OF_PAGE });
}

function written(method, body) {
  // Not randomUUID(): there is none without TLS, but on localhost.
  const random = crypto.getRandomValues(new Uint32Array(4));
  const headers = { ...OF_PAGE, "Idempotency-Key": `desk-${[...random].map((part) => part.toString(36)).join("-")}` };
  if (body === undefined) return { method, headers };
  return { method, headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

async function twice(url, init) {
  try {
    return await asked(url, init);
  } catch (problem) {
    if (problem instanceof Problem && problem.code !== "unknown") throw problem;
    return asked(url, init);
  }
}

async function asked(url, init) {
  const answer = await fetch(url, { ...init, cache: "no-store", credentials: "same-origin", redirect: "error" });
  const ahead = Date.parse(answer.headers.get("Date")) - Date.now();
  offset = Math.abs(ahead) > 2_000 ? ahead : 0;
  const said = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw new Problem(answer.status, said);
  return said;
}
