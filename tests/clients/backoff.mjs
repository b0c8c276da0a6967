// How long the client waits between tries at an address where nobody listens: seconds, a line each. Real connects that
// fail; but no wait is waited for, and each is as long as it can be.

import { Hiroba } from "../../clients/js/src/index.js";

const TRIES = 25;
const WELCOME_MS = 15_000;
const later = globalThis.setTimeout;
const now = performance.now.bind(performance);
let slept_ms = 0;
let left = TRIES;

Math.random = () => 1;
performance.now = () => now() + slept_ms;
globalThis.setTimeout = (act, wait_ms, ...rest) => {
  if (!new Error().stack.includes("/link.js") || wait_ms === WELCOME_MS) return later(act, wait_ms, ...rest);
  console.log(wait_ms / 1000);
  slept_ms += wait_ms;
  if (--left === 0) process.exit();
  return later(act, 0);
};

new Hiroba(process.argv[2]).join("lobby");
