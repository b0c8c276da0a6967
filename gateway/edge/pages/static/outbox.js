// What this page has said and the log has not acknowledged. Each text reaches the log once, in the order typed.
// No DOM and no socket: it is told what happened, and asks for a send.
//
// One text at a time is under way. When the connection breaks meanwhile, the resumed log decides: entries name the
// session that published them (`from`), so the text is either among what was appended since, or it was not appended.

// Between two sends: 16 a second, below messages_per_s (20), also for a pile of texts after a long absence.
const SPACING_MS = 60;
// A node that lost us and lives may append what it took from us until its publish_timeout_s is over; a little more
// than that must have passed since the text went out before a resumed log without it means that it never will. Where
// the network went silent, the node may get the text only when it is back (`late_s`).
const SETTLE_MARGIN_MS = 1000;
// After "not in the log, and never will be": between 0 and the step (full jitter), doubled each time.
const RETRY_FIRST_MS = 1000;
const RETRY_MAX_MS = 20000;
// On so many connections a text is tried, if each breaks over it, before the reader is asked: perhaps it is the text.
const TRIES_MAX = 3;
// Texts kept; typed by hand, so this is an hour's work. Full: add() says no.
const ITEMS_MAX = 100;

// The states of an item. WAITING → SENT → gone (acknowledged), or back to WAITING, or one that only a person ends.
export const WAITING = "waiting";
export const RETRY = "retry";
export const SENT = "sent";
// It may or may not be in the log.
export const UNKNOWN = "unknown";
// It can't be sent as it is; `reason` says why: "long" or "bad".
export const FAILED = "failed";

// Close codes that are about the text under way.
const BLAMES = new Map([[1007, "bad"], [1009, "long"]]);

export class Outbox {
  #send;
  #changed;
  #settle_ms;
  #items = [];
  #ref = 0;
  // Of the connection that texts can go out on; null while there is none.
  #session = null;
  // Set while some time has to pass before the next send; #pausedFor is the item because of which, if there is one.
  #timer = null;
  #pausedFor = null;
  // The highest id known to be ours and settled: the echo of an acknowledged text must not settle the next one.
  #settled = [0, 0];

  // send(frame) hands a frame to the connection; changed(items) shows them, oldest first; publishTimeout_s is the
  // nodes' setting.
  constructor(send, changed, publishTimeout_s) {
    this.#send = send;
    this.#changed = changed;
    this.#settle_ms = publishTimeout_s * 1000 + SETTLE_MARGIN_MS;
  }

  get items() {
    return this.#items;
  }

  // False when the outbox is full: the text stays with the caller.
  add(text) {
    if (this.#items.length >= ITEMS_MAX) return false;
    this.#items.push({ ref: ++this.#ref, text, state: WAITING, sessions: new Set(), late_ms: 0, refusals: 0 });
    this.#flush();
    this.#changed(this.#items);
    return true;
  }

  // A person's decision about an item that is not under way.
  again(ref) {
    const item = this.#find(ref);
    if (!item || item.state === SENT) return;
    item.state = WAITING;
    this.#flush();
    this.#changed(this.#items);
  }

  remove(ref) {
    const item = this.#find(ref);
    if (item && item.state !== SENT) this.#drop(item);
  }

  // A connection is there. `exact`: everything since the last entry seen will be shown, nothing of it is missing.
  welcome(session, exact) {
    this.#session = session;
    const open = this.#underWay();
    if (open && !exact) open.state = UNKNOWN;
    this.#flush();
    this.#changed(this.#items);
  }

  // All that was in the log at the welcome has been shown.
  caughtUp() {
    const open = this.#underWay();
    if (!open || open.sessions.has(this.#session)) return;
    const open_ms = performance.now() - open.sentAt;
    this.#pause(Math.max(this.#settle_ms + open.late_ms - open_ms, SETTLE_MARGIN_MS), open, () => {
      open.state = open.sessions.size < TRIES_MAX ? WAITING : UNKNOWN;
      this.#changed(this.#items);
    });
  }

  // Entries are missing from what is shown: perhaps the one that a text of an earlier connection became.
  gap() {
    const open = this.#underWay();
    if (!open || open.sessions.has(this.#session)) return;
    open.state = UNKNOWN;
    this.#endPause();
    this.#changed(this.#items);
  }

  // Any entry of the room, in the order of the log.
  entry({ from, id, message }) {
    const item = this.#items.find((one) => one.sessions.has(from) && one.text === message);
    if (!item || !this.#settle(id)) return;
    this.#drop(item);
  }

  ack({ ref, id }) {
    this.#settle(id);
    const item = this.#find(ref);
    if (item) this.#drop(item);
  }

  error({ ref, code }) {
    const item = this.#find(ref);
    if (!item || item.state !== SENT) return;
    if (code === "unknown") item.state = UNKNOWN;
    else if (code === "bad_json") this.#fail(item, "bad");
    else {
      // timeout, refused, busy: it is not in the log and will not be.
      item.state = RETRY;
      const step_ms = Math.min(RETRY_FIRST_MS * 2 ** item.refusals++, RETRY_MAX_MS);
      this.#pause(Math.random() * step_ms, item);
    }
    this.#flush();
    this.#changed(this.#items);
  }

  // The node is leaving: acknowledgements may still come, but nothing new goes out.
  away() {
    this.#session = null;
  }

  // The connection is gone, though for late_s the node may still hear what went out on it. True when the close code was
  // about the text under way, which is now FAILED.
  lost(code, late_s) {
    this.#session = null;
    this.#endPause();
    const open = this.#underWay();
    if (!open) return false;
    open.late_ms = Math.max(open.late_ms, late_s * 1000);
    const blame = BLAMES.get(code);
    if (blame) this.#fail(open, blame);
    this.#changed(this.#items);
    return blame !== undefined;
  }

  #flush() {
    if (this.#session === null || this.#timer !== null) return;
    // A text of unknown fate holds the later ones back: what was typed first is read first.
    if (this.#items.some((item) => item.state === SENT || item.state === UNKNOWN)) return;
    const item = this.#items.find((one) => one.state === WAITING || one.state === RETRY);
    if (!item) return;
    item.state = SENT;
    item.sessions.add(this.#session);
    item.sentAt = performance.now();
    item.late_ms = 0;
    this.#pause(SPACING_MS);
    this.#send({ type: "message", message: item.text, ref: item.ref });
  }

  // Nothing is sent before `wait_ms` have passed; then `act` (if any), then the next one.
  #pause(wait_ms, item = null, act = () => {}) {
    this.#endPause();
    this.#pausedFor = item;
    this.#timer = setTimeout(() => {
      this.#endPause();
      act();
      this.#flush();
    }, wait_ms);
  }

  #endPause() {
    clearTimeout(this.#timer);
    this.#timer = this.#pausedFor = null;
  }

  // False when an entry of ours with this id, or a later one, was settled before.
  #settle(id) {
    const [ms, n] = id.split("-").map(Number);
    const [settled_ms, settled_n] = this.#settled;
    if (ms < settled_ms || (ms === settled_ms && n <= settled_n)) return false;
    this.#settled = [ms, n];
    return true;
  }

  #fail(item, reason) {
    item.state = FAILED;
    item.reason = reason;
  }

  #drop(item) {
    this.#items = this.#items.filter((one) => one !== item);
    if (item === this.#pausedFor) this.#endPause();
    this.#flush();
    this.#changed(this.#items);
  }

  #find(ref) {
    return this.#items.find((item) => item.ref === ref);
  }

  #underWay() {
    return this.#items.find((item) => item.state === SENT);
  }
}
