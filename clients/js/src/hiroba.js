// What a page holds: its rooms, and as few connections as the server lets it have them on.

import { Connection } from "./connection.js";
import { Events } from "./events.js";
import { Keep, canKeep } from "./keep.js";
import { Room } from "./room.js";

export class Hiroba extends Events {
  #base;
  #getToken;
  #publishTimeout_s;
  // Whose outbox this is; null: it is not kept.
  #scope;
  #rooms = new Map();
  // It stays, also without a room; further ones are of rooms that the server would not take on it.
  #main;
  #more = new Set();
  #events = new AbortController();

  // `url`: where the server's paths begin, "https://example.org/" or a prefix of it.
  constructor(url, { getToken = null, user = "", keep = true, publishTimeout_s = 10 } = {}) {
    super();
    this.#base = new URL(url, globalThis.location?.href);
    if (!this.#base.pathname.endsWith("/")) this.#base.pathname += "/";
    this.#getToken = getToken;
    this.#publishTimeout_s = publishTimeout_s;
    this.#scope = keep && canKeep() ? JSON.stringify([this.#base.host + this.#base.pathname, user]) : null;
    this.#main = this.#connection({ state: (event) => this.tell("state", event) });
    this.#listen();
  }

  get state() {
    return this.#main.state;
  }

  get rooms() {
    return [...this.#rooms.values()];
  }

  // The room, joined or being joined. Asked for again, it is the same.
  join(name, { history = 50, presence = false } = {}) {
    const key = name.normalize("NFC");
    const known = this.#rooms.get(key);
    if (known) return known;
    const keep = this.#scope === null ? null : new Keep(this.#scope, key);
    const room = new Room(key, { history, presence }, keep, this.#publishTimeout_s, () => this.#leave(room));
    this.#rooms.set(key, room);
    if (this.#main.rooms.size > 0 && this.#main.shares === false) this.#alone(room);
    else this.#main.add(room);
    return room;
  }

  // How far these rooms grow is told by "tops".
  watch(names) {
    this.#main.watch(names);
  }

  unwatch(names) {
    this.#main.unwatch(names);
  }

  // Connects again after a close that was final.
  open() {
    this.#each((connection) => connection.open());
  }

  // The network may be another one now: called by itself where the browser says so.
  hurry() {
    this.#each((connection) => connection.hurry());
  }

  // The network is gone, somebody says.
  letGo() {
    this.#each((connection) => connection.letGo());
  }

  // Ends everything. What is unsent and kept goes out when the room is next opened.
  close() {
    this.#events.abort();
    for (const room of this.rooms) room.leave();
    this.#each((connection) => connection.close());
  }

  #each(act) {
    [this.#main, ...this.#more].forEach(act);
  }

  #connection(hear) {
    return new Connection(this.#base, this.#getToken, {
      state: () => {},
      empty: () => {},
      alone: (room) => this.#alone(room),
      gone: (room) => this.#rooms.delete(room.name),
      tell: (frame) => this.tell(frame.type, frame),
      ...hear,
    });
  }

  #alone(room) {
    const connection = this.#connection({ empty: () => this.#more.delete(connection) });
    this.#more.add(connection);
    connection.add(room);
  }

  #leave(room) {
    if (this.#rooms.get(room.name) !== room) return;
    this.#rooms.delete(room.name);
    this.#each((connection) => connection.rooms.has(room) && connection.remove(room));
  }

  // A browser's own words about the network, and about a tab that was frozen or asleep.
  #listen() {
    if (!globalThis.document) return;
    const { signal } = this.#events;
    addEventListener("offline", () => this.letGo(), { signal });
    addEventListener("online", () => this.hurry(), { signal });
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry(), { signal });
  }
}
