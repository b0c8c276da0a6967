// The browser client of hiroba. See README.md.

export { Hiroba } from "./hiroba.js";
export { compare, count } from "./ids.js";
export { FAILED, RETRY, SENT, UNKNOWN, WAITING } from "./outbox.js";
