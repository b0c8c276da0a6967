// What was said in one room and the log has not acknowledged. Each message reaches the log once, in the order said.
// No DOM and no socket: it is told what happened, and asks for a send.
//
// One message at a time is under way. When the connection breaks meanwhile, the resumed log decides: entries name the
// session that published them (`from`), so the message is either among what was appended since, or it was not appended.

import { compare } from "./ids.js";

// Between two sends: 16 a second, below messages_per_s (20), also for a pile of messages after a long absence.
const SPACING_MS = 60;
// A node that lost us and lives may append what it took from us until its publish_timeout_s is over; a little more
// than that must have passed since the message went out before a resumed log without it means that it never will. Where
// the network went silent, the node may get the message only when it is back (`late_s`).
const SETTLE_MARGIN_MS = 1000;
// After "not in the log, and never will be": between 0 and the step (full jitter), doubled each time.
const RETRY_FIRST_MS = 1000;
const RETRY_MAX_MS = 20000;
// On so many connections a message is tried, if each breaks over it, before a person is asked: perhaps it is the message.
const TRIES_MAX = 3;
// Messages kept; typed by hand, so this is an hour's work. Full: add() says no.
const ITEMS_MAX = 100;

// The states of an item. WAITING → SENT → gone (acknowledged), or back to WAITING, or one that only a person ends.
export const WAITING = "waiting";
export const RETRY = "retry";
export const SENT = "sent";
// It may or may not be in the log.
export const UNKNOWN = "unknown";
// It can't be sent as it is; `reason` says why: "long" or "bad".
export const FAILED = "failed";

// Close codes that are about the message under way.
const BLAMES = new Map([[1007, "bad"], [1009, "long"]]);

export class Outbox {
  #hear;
  #keep;
  #settle_ms;
  #items = [];
  #ref = 0;
  // Of the connection that messages can go out on; null while there is none.
  #session = null;
  // Set while some time has to pass before the next send; #pausedFor are the items because of which, if there are any.
  #timer = null;
  #pausedFor = new Set();
  // The highest id known to be ours: what goes out later has a higher one.
  #settled = null;

  // `hear` is asked cursor(): the newest id that is older than whatever is sent now, and late_s(): for how long a node
  // may still hear what a lost connection said; and told send(message, answer), changed(items), look(): the log has to be
  // read from `floor`. `keep` (keep.js) holds the items over a reload; null: nothing does. publishTimeout_s is the
  // nodes' setting.
  constructor(hear, keep, publishTimeout_s) {
    this.#hear = hear;
    this.#keep = keep;
    this.#settle_ms = publishTimeout_s * 1000 + SETTLE_MARGIN_MS;
    keep?.start(
      () => this.#kept(),
      (records) => this.#adopt(records),
    );
  }

  get items() {
    return this.#items;
  }

  // Something that went out has no answer yet.
  get busy() {
    return this.#items.some(isSent);
  }

  // From where the log has to be read to know what became of another tab's message; null: there is none.
  get floor() {
    const ids = this.#items.filter((item) => item.look).map((item) => item.after);
    return ids.length === 0 ? null : ids.sort(compare)[0];
  }

  // The item, or null when the outbox is full: the message stays with the caller.
  add(message) {
    if (this.#items.length >= ITEMS_MAX) return null;
    // Those of several tabs are sorted by it; a clock that is set back must not change the order of ours.
    const at = Math.max(Date.now(), this.#items.at(-1)?.at ?? 0);
    const item = newItem(++this.#ref, JSON.stringify(message) ?? "null", at);
    this.#items.push(item);
    if (this.#keep?.ready) this.#keep.put(item);
    this.#flush();
    this.#changed();
    return item;
  }

  // A person's decision about an item that is not under way.
  again(item) {
    if (!this.#items.includes(item) || item.state === SENT) return;
    this.#becomes(item, WAITING);
    this.#flush();
    this.#changed();
  }

  takeBack(item) {
    if (this.#items.includes(item) && item.state !== SENT) this.#drop(item, null);
  }

  // A connection is there, and shows what follows on the id `from` (null: on some other one). `exact`: everything since
  // the last entry seen will be shown, nothing of it is missing. True when the log has to be read from `floor` first.
  welcome(session, from, exact) {
    this.#session = session;
    let further = false;
    for (const item of this.#items.filter(isSent)) {
      if (item.look && (from === null || compare(from, item.after) > 0)) further = true;
      else if (exact) item.look = false;
      else this.#becomes(item, UNKNOWN);
    }
    this.#flush();
    this.#changed();
    return further;
  }

  // All that was in the log at the welcome has been shown.
  caughtUp() {
    const open = this.#orphans();
    if (open.length === 0) return;
    const now = performance.now();
    const waits = open.map((item) => {
      const late_ms = item.adopted ? this.#hear.late_s() * 1000 : item.late_ms;
      return this.#settle_ms + late_ms - (now - item.sentAt);
    });
    this.#pause(Math.max(...waits, SETTLE_MARGIN_MS), open, (left) => {
      for (const item of left) this.#becomes(item, item.sessions.size < TRIES_MAX ? WAITING : UNKNOWN);
      this.#changed();
    });
  }

  // Entries are missing from what is shown: perhaps the one that a message of an earlier connection became.
  gap() {
    const open = this.#orphans();
    if (open.length === 0) return;
    for (const item of open) this.#becomes(item, UNKNOWN);
    this.#endPause();
    this.#changed();
  }

  // Any entry of the room, in the order of the log. True when it is one of ours that was open.
  entry({ from, id, message }) {
    const item = this.#items.find(
      (one) => one.sessions.has(from) && compare(id, one.after) > 0 && one.json === JSON.stringify(message),
    );
    if (item) this.#drop(item, id);
    return item !== undefined;
  }

  // The node is leaving: acknowledgements may still come, but nothing new goes out.
  away() {
    this.#session = null;
  }

  // The connection is gone, though for late_s the node may still hear what went out on it. `blamed`: a code that is about
  // a message is about ours. True when the loss is explained by what was under way.
  lost(code, late_s, blamed) {
    this.#session = null;
    this.#endPause();
    const reason = BLAMES.get(code);
    const open = this.#items.filter(isSent);
    for (const item of open) {
      item.late_ms = Math.max(item.late_ms, late_s * 1000);
      if (reason && blamed) this.#becomes(item, FAILED, reason);
    }
    if (open.length > 0) this.#changed();
    return reason !== undefined && open.length > 0;
  }

  // Nothing more is sent from here: what is kept is left to whoever opens the room next.
  close() {
    this.#session = null;
    this.#endPause();
    this.#keep?.close();
  }

  #flush() {
    if (this.#session === null || this.#timer !== null || this.#keep?.ready === false) return;
    // A message of unknown fate holds the later ones back: what was typed first is read first.
    if (this.#items.some((item) => item.state === SENT || item.state === UNKNOWN)) return;
    const item = this.#items.find((one) => one.state === WAITING || one.state === RETRY);
    if (!item) return;
    item.state = SENT;
    item.sessions.add(this.#session);
    item.after ??= this.#newest();
    item.sentAt = performance.now();
    item.late_ms = 0;
    item.adopted = false;
    this.#pause(SPACING_MS);
    if (this.#keep) this.#sendKept(item, item.sentAt, this.#session);
    else this.#send(item);
  }

  // It is written down as sent before it goes out: else another tab could send it again.
  async #sendKept(item, sentAt, session) {
    await this.#keep.put(item);
    // Meanwhile it may have been found in the log, or be under way for another time.
    if (item.state !== SENT || item.sentAt !== sentAt || !this.#items.includes(item)) return;
    if (this.#session === session) {
      this.#send(item);
      return;
    }
    item.sessions.delete(session);
    this.#becomes(item, WAITING);
    this.#flush();
    this.#changed();
  }

  #send(item) {
    this.#hear.send(item.message, (answer) => this.#answered(item, answer));
  }

  #answered(item, { type, id, code }) {
    if (!this.#items.includes(item)) return;
    if (type === "ack") this.#drop(item, id);
    // Of a lost connection, lost() is told.
    if (type !== "error" || code === "lost" || item.state !== SENT) return;
    if (code === "unknown") this.#becomes(item, UNKNOWN);
    else if (REFUSED_FOR_NOW.has(code)) {
      this.#becomes(item, RETRY);
      const step_ms = Math.min(RETRY_FIRST_MS * 2 ** item.refusals++, RETRY_MAX_MS);
      this.#pause(Math.random() * step_ms, [item]);
    } else this.#becomes(item, FAILED, code === "bad_json" ? "bad" : code);
    this.#flush();
    this.#changed();
  }

  #newest() {
    const cursor = this.#hear.cursor();
    return this.#settled !== null && compare(this.#settled, cursor) > 0 ? this.#settled : cursor;
  }

  // Nothing is sent before `wait_ms` have passed; then `act` (if any) on those that were not dropped, then the next one.
  #pause(wait_ms, items = [], act = () => {}) {
    this.#endPause();
    this.#pausedFor = new Set(items);
    this.#timer = setTimeout(() => {
      const left = this.#pausedFor;
      this.#endPause();
      act(left);
      this.#flush();
    }, wait_ms);
  }

  #endPause() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#pausedFor = new Set();
  }

  #becomes(item, state, reason = null) {
    item.state = state;
    item.reason = reason;
    item.look = false;
    this.#keep?.put(item);
  }

  // It is in the log as `id`; null: it was taken back.
  #drop(item, id) {
    if (id !== null && (this.#settled === null || compare(id, this.#settled) > 0)) this.#settled = id;
    this.#items = this.#items.filter((one) => one !== item);
    this.#keep?.remove(item);
    if (this.#pausedFor.delete(item) && this.#pausedFor.size === 0) this.#endPause();
    item.settle(id);
    this.#flush();
    this.#changed();
  }

  // From now on items can be kept.
  #kept() {
    for (const item of this.#items) this.#keep.put(item);
    this.#flush();
  }

  // What a tab that is gone had not sent, or has sent and not seen in the log.
  #adopt(records) {
    for (const record of records) {
      const sentAt = performance.now();
      this.#items.push(
        Object.assign(newItem(++this.#ref), record, { sentAt, kept: true, adopted: true, look: isSent(record) }),
      );
    }
    this.#items.sort((one, other) => one.at - other.at);
    if (this.#session !== null && this.floor !== null) this.#hear.look();
    this.#flush();
    this.#changed();
  }

  // Under way, and sent by an earlier connection.
  #orphans() {
    return this.#items.filter((item) => isSent(item) && !item.look && !item.sessions.has(this.#session));
  }

  #changed() {
    this.#hear.changed(this.#items);
  }
}

// Not in the log, and not because of what it says: it may be later.
const REFUSED_FOR_NOW = new Set(["timeout", "refused", "busy", "not_joined"]);

const isSent = (item) => item.state === SENT;

function newItem(ref, json, at) {
  const item = {
    ref, json, at, state: WAITING, reason: null,
    get message() {
      return JSON.parse(this.json);
    },
    // Those that sent it, and an id that is older than whatever they made of it; null: nobody sent it yet.
    sessions: new Set(), after: null,
    // performance.now() of the last send, and what is added to the time after which it will never appear.
    sentAt: 0, late_ms: 0, refusals: 0,
    // Taken over from another tab; and nobody has looked behind `after` yet.
    adopted: false, look: false,
    // Survives a reload.
    kept: false,
  };
  item.settled = new Promise((settle) => {
    item.settle = settle;
  });
  return item;
}
