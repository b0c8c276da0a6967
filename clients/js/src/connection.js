// The rooms on one link: joins them, resumes all of them after a loss, and tells frames apart by room.
//
// The first room is joined by the handshake, which every server understands; the others by `join`. A server that knows
// one room per connection refuses that, and whoever owns this connection finds another for the room.

import { Link } from "./link.js";

// A join refused with one of these is asked again, within so long; with another one it is final.
const LATER = new Set(["timeout", "refused", "busy", "unknown"]);
const LATER_MS = 5000;
// Frames of no room, or of one that may be only watched.
const TOLD = new Set(["tops", "read", "error"]);

export class Connection {
  #base;
  #hear;
  #link;
  // By the names that the server uses, once joined; they may have been left since.
  #joined = new Map();
  // The handshake's room, if it has one.
  #first = null;
  #session = null;
  #watched = new Set();
  #scheduled = false;
  // The first one is the next handshake's.
  rooms = new Set();
  // Whether the server takes several rooms; null: nobody has asked this one yet.
  shares = null;
  state = "idle";

  // `hear` is told state({state, code, reason}), alone(room): no place for it here, gone(room): the server ended it,
  // empty(): no room is left, tell(frame).
  constructor(base, getToken, hear) {
    this.#base = base;
    this.#hear = hear;
    this.#link = new Link(this, getToken);
  }

  get late_s() {
    return this.#link.late_s;
  }

  add(room) {
    this.rooms.add(room);
    room.carriedBy(this);
    if (this.#link.up) this.#join(room);
    else this.#open();
  }

  remove(room) {
    this.rooms.delete(room);
    if (!this.#closeIfEmpty()) this.#leave(room);
  }

  watch(names) {
    for (const name of names) this.#watched.add(name);
    if (this.#link.up) this.#watch("watch", names);
    else this.#open();
  }

  unwatch(names) {
    for (const name of names) this.#watched.delete(name);
    if (!this.#closeIfEmpty()) this.#watch("unwatch", names);
  }

  // Joins a room again, from where it says now: what it needs lies further back.
  again(room) {
    if (!this.#link.up) return;
    if (this.rooms.size === 1 && this.shares !== true) {
      this.#link.letGo();
      this.#link.hurry();
      return;
    }
    room.lost(0, 0);
    this.#leave(room, () => this.rooms.has(room) && this.#join(room));
  }

  ask(frame, answer) {
    this.#link.ask(frame, answer);
  }

  whisper(frame) {
    this.#link.whisper(frame);
  }

  open() {
    if (!this.#link.idle) return;
    this.changed({ state: "connecting" });
    this.#link.open();
  }

  hurry() {
    this.#link.hurry();
  }

  letGo() {
    this.#link.letGo();
  }

  close() {
    this.#each((room) => room.lost(1000, 0));
    this.#link.close();
  }

  // ---- for the link ----

  address() {
    [this.#first = null] = this.rooms;
    this.#session = null;
    const path = this.#first === null ? "ws/" : `ws/chat/${encodeURIComponent(this.#first.name)}/`;
    const url = new URL(path, this.#base);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.#first !== null) url.search = new URLSearchParams(this.#first.asks());
    return url;
  }

  welcome(frame) {
    this.#session = frame.session;
    this.shares = null;
    const first = this.#first;
    for (const room of this.rooms) {
      if (room === first) this.#hasJoined(room, frame);
      else this.#join(room);
    }
    // It was left while the handshake was under way.
    if (first !== null && !this.rooms.has(first)) this.#leave(first);
    if (this.#watched.size > 0) this.#watch("watch", [...this.#watched]);
  }

  frame(frame) {
    if (TOLD.has(frame.type)) this.#hear.tell(frame);
    // A server that knows one room per connection does not name it.
    const room = frame.room === undefined ? this.#first : this.#joined.get(frame.room);
    if (!room || !this.rooms.has(room)) return;
    if (frame.type === "left") {
      this.rooms.delete(room);
      room.left(frame);
      this.#hear.gone(room);
      this.#closeIfEmpty();
    } else room.frame(frame);
  }

  away() {
    this.#each((room) => room.away());
  }

  // A final code is about one text under way, if it is about a text at all. With several we can't tell which: each has
  // its tries.
  lost(code, late_s) {
    this.#joined.clear();
    // No welcome came: perhaps it is this room that may not be entered. The next one has its turn at the door.
    if (this.#session === null && this.rooms.delete(this.#first)) this.rooms.add(this.#first);
    const busy = [...this.rooms].filter((room) => room.busy).length;
    let explained = false;
    this.#each((room) => {
      explained = room.lost(code, late_s, busy === 1) || explained;
    });
    return explained;
  }

  changed(event) {
    this.state = event.state;
    this.#hear.state(event);
    // Of a connection that is there, a room hears when it has joined.
    if (event.state !== "connected") this.#each((room) => room.changed(event));
  }

  // ---- its own ----

  // All that is joined in one turn of the loop goes out together.
  #open() {
    if (this.#scheduled || !this.#link.idle) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      if (this.rooms.size + this.#watched.size > 0) this.open();
    });
  }

  #join(room) {
    this.ask({ type: "join", room: room.name, ...room.asks(), presence: room.sees }, (answer) => {
      if (answer.type === "joined") this.shares = true;
      if (!this.rooms.has(room)) {
        if (answer.type === "joined") this.#leave(room);
      } else if (answer.type === "joined") this.#hasJoined(room, answer);
      else if (answer.code === "bad_json" && this.shares !== true) this.#alone(room);
      else if (LATER.has(answer.code)) this.#joinLater(room);
      else if (answer.code !== "lost") {
        this.rooms.delete(room);
        room.refused(answer);
        this.#hear.gone(room);
      }
    });
  }

  #joinLater(room) {
    const session = this.#session;
    const act = () => session === this.#session && this.rooms.has(room) && this.#join(room);
    setTimeout(act, Math.random() * LATER_MS);
  }

  #leave(room, answer = () => {}) {
    this.ask({ type: "leave", room: room.name }, answer);
  }

  #hasJoined(room, frame) {
    this.#joined.set(frame.room, room);
    room.joined(frame, frame.session ?? this.#session);
  }

  #alone(room) {
    this.shares = false;
    this.rooms.delete(room);
    this.#hear.alone(room);
    this.#closeIfEmpty();
  }

  #watch(type, rooms) {
    this.ask({ type, rooms }, (answer) => {
      if (answer.code !== "lost") this.#hear.tell(answer);
    });
  }

  #closeIfEmpty() {
    if (this.rooms.size + this.#watched.size > 0) return false;
    this.#link.close();
    this.#hear.empty();
    return true;
  }

  #each(act) {
    [...this.rooms].forEach(act);
  }
}
