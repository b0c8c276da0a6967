// A room as this client has it: a cursor on its log, which says where to resume and what is missing; and its outbox.

import { START, compare, count } from "./ids.js";
import { Events } from "./events.js";
import { Outbox } from "./outbox.js";

// Between two that say "typing": others hear it for longer.
const TYPING_MS = 3000;
// Between two that say how far somebody has read: who scrolls reads on.
const READ_MS = 1000;

export class Room extends Events {
  #connection = null;
  #outbox;
  #history;
  #state = "connecting";
  #session = null;
  // Id of the last entry told; null before the first.
  #last = null;
  // Where to resume if nothing was told yet; null: with the history again.
  #floor = null;
  // What the present join asked for: {after} or {history}.
  #asked = {};
  // Id of the last entry that came since, told or not: a look further back brings what was told already.
  #walked = null;
  // The room's newest id at the join, while entries up to it are still to come; else null.
  #top = null;
  // True from `recovered: false` or a `gap` to the next entry, which then may have any id.
  #loose = false;
  // True when the reader knows already that entries are missing before the next one.
  #gapTold = false;
  // The log has to be read from further back, once it was read to its top.
  #further = false;
  #left;
  // Nothing is said here any more.
  #ended = false;
  #read = null;
  #readSaid = null;
  // One was said just now: the next one waits.
  #readLately = false;
  #typedAt = -Infinity;

  // Made by Hiroba.join().
  constructor(name, { history, presence }, keep, publishTimeout_s, left) {
    super();
    this.name = name;
    this.sees = presence;
    this.#history = history;
    this.#left = left;
    this.#outbox = new Outbox(
      {
        cursor: () => this.#cursor(),
        late_s: () => this.#connection.late_s,
        send: (message, answer) => this.#ask({ type: "message", message }, answer),
        look: () => this.#look(),
        changed: (items) => this.tell("outbox", items),
      },
      keep,
      publishTimeout_s,
    );
  }

  get state() {
    return this.#state;
  }

  // What was said here and is not acknowledged, oldest first.
  get outbox() {
    return this.#outbox.items;
  }

  // The session that entries of ours are `from`; null while there is none.
  get session() {
    return this.#session;
  }

  get lastId() {
    return this.#last ?? this.#floor;
  }

  // The id up to which the user has read, as far as known.
  get readId() {
    return this.#read;
  }

  get unread() {
    const last = this.lastId;
    return last && this.#read && Math.max(count(last) - count(this.#read), 0);
  }

  // The item in the outbox; null: the outbox is full, or the room was left.
  send(message) {
    // What is typed next is another message.
    this.#typedAt = -Infinity;
    return this.#ended ? null : this.#outbox.add(message);
  }

  again(item) {
    this.#outbox.again(item);
  }

  takeBack(item) {
    this.#outbox.takeBack(item);
  }

  // A page of older entries: {entries, more}. Rejects with an Error that has the protocol's `code`, or "lost".
  history({ before, limit = 50 } = {}) {
    return this.ask({ type: "history", before, limit });
  }

  // Any request of the protocol that is about this room. The answer, or the first of several; as history() rejects.
  ask(frame) {
    return new Promise((answered, failed) => {
      this.#ask(frame, (answer) => {
        if (answer.type === "error") failed(Object.assign(new Error(answer.text), answer));
        else answered(answer);
      });
    });
  }

  leave() {
    if (this.#ended) return;
    this.#left(this);
    this.#end({ state: "closed", code: 1000, reason: "" });
  }

  // The user has read up to this entry. Never moves back; said again after a loss.
  read(id = this.lastId) {
    if (!id || compare(id, this.#read) <= 0) return;
    this.#read = id;
    this.#sayRead();
  }

  typing() {
    const now = performance.now();
    if (this.#state !== "connected" || now - this.#typedAt < TYPING_MS) return;
    this.#typedAt = now;
    this.#connection.whisper({ type: "typing", room: this.name });
  }

  // ---- for the connection ----

  // A message is under way.
  get busy() {
    return this.#outbox.busy;
  }

  carriedBy(connection) {
    this.#connection = connection;
  }

  // What the next join should ask for.
  asks() {
    const seen = this.lastId;
    const floor = this.#outbox.floor;
    const after = floor && seen && compare(floor, seen) < 0 ? floor : seen;
    this.#asked = after === null ? { history: this.#history } : { after };
    return this.#asked;
  }

  // The answer to it.
  joined(frame, session) {
    const { last_id, recovered, read } = frame;
    const { after = null, history } = this.#asked;
    const resumed = after !== null;
    this.#session = session;
    this.#top = last_id;
    // Nothing to show: coming back later, everything is new.
    if (!resumed && (last_id === START || history === 0)) this.#floor = last_id;
    this.#walked = after ?? this.#floor;
    this.#loose = resumed && !recovered;
    this.#readElsewhere(read);
    this.changed({ state: "connected" });
    this.tell("joined", { ...frame, resumed });
    // The handshake's address has no word for it.
    if (frame.session && this.sees) {
      this.#ask({ type: "join", presence: true }, (answer) => answer.type === "joined" && this.tell("presence", answer));
    }
    this.#further = this.#outbox.welcome(session, after, resumed && recovered);
    this.#sayRead();
    this.#lookAtTop();
  }

  frame(frame) {
    // What was deleted before it came has its place among the entries.
    if (frame.type === "message" || (frame.type === "deleted" && compare(frame.id, this.#walked) > 0)) this.#entry(frame);
    else if (frame.type === "gap") this.#gap(frame);
    else if (frame.type === "read") this.#readElsewhere(frame.id);
    // All else is an event as it is, a newer server's too.
    else this.tell(frame.type, frame);
  }

  away() {
    this.#outbox.away();
  }

  lost(code, late_s, blamed = false) {
    this.#session = this.#top = this.#readSaid = null;
    this.#gapTold = this.#further = false;
    return this.#outbox.lost(code, late_s, blamed);
  }

  left(frame) {
    this.tell("left", frame);
    this.#end({ state: "closed", code: 0, reason: frame.reason ?? "" });
  }

  refused(frame) {
    this.tell("error", frame);
    this.#end({ state: "closed", code: 0, reason: frame.text });
  }

  changed(event) {
    if (event.state === this.#state && event.state !== "reconnecting") return;
    this.#state = event.state;
    this.tell("state", event);
  }

  #end(event) {
    this.#ended = true;
    this.lost(0, 0);
    this.#outbox.close();
    this.changed(event);
  }

  // ---- the log ----

  #entry(frame) {
    const { id } = frame;
    const last = this.#last;
    this.#walked = id;
    // It was told before, unless the log was put back.
    if (compare(id, last) <= 0 && (!this.#loose || this.#looking())) {
      this.#outbox.entry(frame);
      this.#lookAtTop();
      return;
    }
    const lost = last === null || this.#gapTold ? 0 : count(id) - count(last) - 1;
    if (lost) this.tell("gap", { lost: lost > 0 ? lost : null });
    this.#loose = this.#gapTold = false;
    this.#last = id;
    frame.own = this.#outbox.entry(frame) || frame.from === this.#session;
    this.tell(frame.type, frame);
    this.#lookAtTop();
  }

  #gap({ before, lost }) {
    this.#outbox.gap();
    // Further back than what was told: nobody misses it but the outbox.
    if (this.#looking() && compare(before, this.#last) <= 0) return;
    this.#loose = this.#gapTold = true;
    this.tell("gap", { lost });
  }

  #looking() {
    const { after } = this.#asked;
    return after && compare(after, this.#last) < 0;
  }

  // Everything that was in the log when we came has come: what is not among it was not in the log.
  #lookAtTop() {
    if (!this.#top || !this.#walked || compare(this.#walked, this.#top) < 0) return;
    this.#top = null;
    this.#outbox.caughtUp();
    // What came with the history may have settled it.
    if (this.#further && this.#outbox.floor !== null) this.#look();
  }

  #look() {
    // Not before it is known where the log was read to.
    this.#further = true;
    if (this.#top === null) this.#connection.again(this);
  }

  // Older than whatever is sent now.
  #cursor() {
    return this.#last ?? (this.#floor ??= this.#top);
  }

  // ---- what is asked of the server ----

  #ask(frame, answer) {
    this.#connection.ask({ ...frame, room: this.name }, answer);
  }

  #sayRead() {
    if (this.#state !== "connected" || this.#read === this.#readSaid || this.#readLately) return;
    this.#readSaid = this.#read;
    this.#connection.whisper({ type: "read", room: this.name, id: this.#read });
    this.#readLately = true;
    setTimeout(() => {
      this.#readLately = false;
      this.#sayRead();
    }, READ_MS);
  }

  #readElsewhere(id) {
    if (!id) return;
    const further = compare(id, this.#read);
    if (further >= 0) this.#read = this.#readSaid = id;
    if (further > 0) this.tell("read", { id });
  }
}
