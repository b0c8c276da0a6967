// A room's connection: joins, comes back after a loss, resumes exactly behind the last entry seen.
// It speaks wire v1 (docs/protocol.md) and knows nothing of the page, nor of what is waiting to be sent.

import { address } from "./page.js";

const SUBPROTOCOL = "hiroba.v1";
// Entries shown on entering.
const HISTORY = 50;
// Full jitter: a wait anywhere between 0 and the step, so that a thousand pages don't come back in one moment.
const STEP_FIRST_S = 0.5;
const STEP_MAX_S = 20;
// A node may ask for any pause; this is the longest that we take its word for.
const PAUSE_MAX_S = 300;
// After so long a connection was good, and the next loss begins with the first step again.
const STEADY_S = 10;
// No welcome within this time: the handshake hangs somewhere.
const WELCOME_S = 15;
// A script sees no WebSocket ping. So a connection on which nothing was heard for so long is asked, and is dead,
// whatever the browser thinks of it, when nothing at all is heard for as long again: below 20 s together. A node whose
// ping_s is shorter than this sets the pace.
const PATIENCE_MAX_S = 9;
// Coming back makes no sense after these (core/closes.py): the node would close again, or wanted to be left.
const FINAL = new Set([1000, 1002, 1003, 1007, 1009]);

export class Connection {
  #room;
  #hear;
  #socket = null;
  // Consecutive losses; the exponent of the next wait.
  #losses = 0;
  // performance.now() of the last welcome; null before the first of this socket.
  #welcomed = null;
  // performance.now() before which a leaving node asked us not to come back; null: it did not.
  #notBefore = null;
  #timer = null;
  // What is expected of the present socket: a welcome, something to be heard, an answer.
  #deadline = null;
  // performance.now() of the last frame.
  #heardAt = 0;
  // True from our ping to the next frame, whatever it is.
  #asked = false;
  // The node's, from its welcome.
  #ping_s = 0;
  // Id of the last entry handed on; null before the first.
  #last = null;
  // Where to resume if nothing was handed on yet; null: with the history again.
  #floor = null;
  // The room's newest id at the last welcome, while entries up to it are still to come after a resume; else null.
  #top = null;
  // True from the welcome's `recovered: false` or a `gap` to the next entry, which then may have any id.
  #loose = false;
  // True when the reader knows already that entries are missing before the next one.
  #gapTold = false;

  // `hear` is told: state(name, code, reason), welcome(frame, resumed), caughtUp(), entry(frame), gap(lost or null),
  // ack(frame), error(frame), away(), lost(code, late_s). lost() returns true when the loss has an explanation that
  // makes coming back sensible even after a final code. `late_s`: for so long the node may still hear what we said.
  constructor(room, hear) {
    this.#room = room;
    this.#hear = hear;
  }

  open() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const socket = new WebSocket(this.#address(), SUBPROTOCOL);
    socket.onmessage = (event) => this.#heard(JSON.parse(event.data));
    socket.onclose = (event) => this.#lost(event.code, event.reason);
    this.#socket = socket;
    this.#welcomed = this.#notBefore = null;
    this.#asked = false;
    this.#within(WELCOME_S, () => this.letGo());
  }

  // The network may be another one now. Comes back at once rather than at the end of the wait, unless a leaving node
  // asked for that wait; a connection that seems to be there is asked.
  hurry() {
    if (this.#timer !== null && this.#notBefore === null) this.open();
    else if (this.#socket !== null && this.#welcomed !== null && !this.#asked) this.#ask();
  }

  // Takes the connection for lost: close() of a dead one takes its time to say so.
  letGo() {
    const socket = this.#socket;
    if (socket === null) return;
    socket.onmessage = socket.onclose = null;
    socket.close();
    // A network that comes back delivers what it holds, until the node has cut off the silent one.
    this.#lost(1006, "", 2 * this.#ping_s);
  }

  // Only between welcome() and lost().
  send(frame) {
    this.#socket.send(JSON.stringify(frame));
    // What we sent now lies behind the top of that time, so a resume from there can't miss it.
    this.#floor ??= this.#top;
  }

  #address() {
    const after = this.#last ?? this.#floor;
    const url = address(`ws/chat/${encodeURIComponent(this.#room)}/`);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.search = after === null ? `history=${HISTORY}` : `after=${after}`;
    return url;
  }

  #heard(frame) {
    this.#heardAt = performance.now();
    this.#asked = false;
    if (frame.type === "welcome") this.#welcome(frame);
    else if (frame.type === "message") this.#entry(frame);
    else if (frame.type === "ack") this.#hear.ack(frame);
    else if (frame.type === "gap") this.#gap(frame.lost);
    else if (frame.type === "error") this.#hear.error(frame);
    else if (frame.type === "reconnect") this.#away(frame.after_s);
    // A pong has said all by coming. Other types are a newer node's.
  }

  #welcome(frame) {
    const resumed = (this.#last ?? this.#floor) !== null;
    this.#welcomed = performance.now();
    this.#ping_s = frame.ping_s;
    this.#listen();
    this.#top = frame.last_id;
    // An empty room has nothing to show: coming back to it later, everything is new.
    if (!resumed && frame.last_id === "0-0") this.#floor = frame.last_id;
    this.#loose = resumed && !frame.recovered;
    this.#hear.state("connected");
    this.#hear.welcome(frame, resumed);
    this.#lookAtTop();
  }

  #entry(frame) {
    const last = this.#last;
    if (last !== null && !this.#loose) {
      if (compare(frame.id, last) <= 0) return;
    }
    if (last !== null && !this.#gapTold && count(frame.id) !== count(last) + 1) {
      const lost = count(frame.id) - count(last) - 1;
      this.#hear.gap(lost > 0 ? lost : null);
    }
    this.#loose = this.#gapTold = false;
    this.#last = frame.id;
    this.#hear.entry(frame);
    this.#lookAtTop();
  }

  #gap(lost) {
    this.#loose = this.#gapTold = true;
    this.#hear.gap(lost);
  }

  // Everything that was in the log when we came has been handed on: what is not among it was not in the log.
  #lookAtTop() {
    const reached = this.#last ?? this.#floor;
    if (this.#top === null || reached === null || compare(reached, this.#top) < 0) return;
    this.#top = null;
    this.#hear.caughtUp();
  }

  #away(after_s) {
    const pause_s = Math.min(Math.max(Number(after_s) || 0, 0), PAUSE_MAX_S);
    this.#notBefore = performance.now() + pause_s * 1000;
    this.#hear.away();
  }

  #lost(code, reason, late_s = 0) {
    clearTimeout(this.#deadline);
    this.#deadline = null;
    this.#socket = this.#top = null;
    this.#gapTold = false;
    if (this.#welcomed !== null && performance.now() - this.#welcomed > STEADY_S * 1000) this.#losses = 0;
    const explained = this.#hear.lost(code, late_s);
    if (FINAL.has(code) && !explained) {
      this.#hear.state("closed", code, reason);
      return;
    }
    this.#hear.state("reconnecting", code, reason);
    this.#timer = setTimeout(() => this.open(), this.#wait_ms());
  }

  #wait_ms() {
    if (this.#notBefore !== null) return Math.max(this.#notBefore - performance.now(), 0);
    const step_s = Math.min(STEP_FIRST_S * 2 ** this.#losses++, STEP_MAX_S);
    return Math.random() * step_s * 1000;
  }

  #within(limit_s, act) {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(act, limit_s * 1000);
  }

  #patience_s() {
    return Math.min(this.#ping_s, PATIENCE_MAX_S);
  }

  // One timer looks now and then: setting it anew for each frame would cost more than the frame.
  #listen() {
    const left_s = this.#patience_s() - (performance.now() - this.#heardAt) / 1000;
    if (left_s > 0) this.#within(left_s, () => this.#listen());
    else this.#ask();
  }

  #ask() {
    this.#asked = true;
    this.#socket.send(JSON.stringify({ type: "ping" }));
    this.#within(this.#patience_s(), () => {
      if (this.#asked) this.letGo();
      else this.#listen();
    });
  }
}

// The dense count of an entry id "<ms>-<n>".
function count(id) {
  return Number(id.split("-")[1]);
}

// Negative, zero, positive: as for sort().
export function compare(a, b) {
  return parseInt(a, 10) - parseInt(b, 10) || count(a) - count(b);
}
