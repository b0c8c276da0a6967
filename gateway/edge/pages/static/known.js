// The rooms that this browser knows, and up to where somebody has read in each: kept by it, the same in all its tabs.

import { START, compare, count } from "./client/ids.js";

// The rooms kept; above it the one goes that was not opened for the longest time, pinned ones last.
const ROOMS_MAX = 200;
// Marks move with every message; they are written together.
const SAVE_MS = 300;

export class Known {
  #key;
  // False once storage would not take it: then the list lives as long as the page.
  #kept = true;
  #changed;
  // By name: {name, pinned, openedAt: Unix milliseconds, read: an id, last: the newest id that was heard of}.
  #rooms;
  // {read, last} by name, as far as they are not written.
  #marks = new Map();
  #timer = null;

  // `scope` tells chats of one origin apart. `changed(rooms)` is told after each change, also by another tab: whether it
  // may be of which rooms there are.
  constructor(scope, changed) {
    this.#key = `hiroba.rooms:${scope}`;
    this.#changed = changed;
    this.#rooms = this.#load();
    window.addEventListener("storage", ({ key }) => {
      if (key !== this.#key && key !== null) return;
      this.#rooms = this.#load();
      this.#changed(true);
    });
    window.addEventListener("pagehide", () => this.#save());
  }

  has(name) {
    return this.#rooms.has(name);
  }

  get names() {
    return [...this.#rooms.keys()];
  }

  // As the list shows them: pinned ones first, then by when somebody last spoke.
  get sorted() {
    const rooms = [...this.#rooms.values()];
    return rooms.sort((a, b) => b.pinned - a.pinned || compare(b.last, a.last) || b.openedAt - a.openedAt);
  }

  opened(name) {
    this.#save((rooms) => {
      const room = rooms.get(name) ?? { name, pinned: false, read: START, last: START };
      rooms.set(name, { ...room, openedAt: Date.now() });
      while (rooms.size > ROOMS_MAX) rooms.delete(oldest(rooms, name));
    });
    this.#changed(true);
  }

  pin(name, pinned) {
    this.#save((rooms) => rooms.has(name) && rooms.set(name, { ...rooms.get(name), pinned }));
    this.#changed(false);
  }

  forget(name) {
    this.#save((rooms) => rooms.delete(name));
    this.#changed(true);
  }

  // Neither goes back, whichever tab says what.
  read(name, id) {
    this.#mark(name, { read: id, last: id });
  }

  grew(name, id) {
    this.#mark(name, { read: START, last: id });
  }

  #mark(name, mark) {
    const room = this.#rooms.get(name);
    if (!room || (compare(mark.read, room.read) <= 0 && compare(mark.last, room.last) <= 0)) return;
    this.#rooms.set(name, moved(room, mark));
    this.#marks.set(name, moved(this.#marks.get(name) ?? mark, mark));
    this.#timer ??= setTimeout(() => this.#save(), SAVE_MS);
    this.#changed(false);
  }

  // Another tab may have written since we last looked.
  #save(change = () => {}) {
    clearTimeout(this.#timer);
    this.#timer = null;
    const rooms = this.#load();
    change(rooms);
    this.#rooms = rooms;
    this.#marks.clear();
    try {
      localStorage.setItem(this.#key, JSON.stringify([...rooms.values()]));
    } catch {
      this.#kept = false;
    }
  }

  // What is kept, with what we know better.
  #load() {
    const rooms = this.#kept ? this.#stored() : this.#rooms;
    for (const [name, mark] of this.#marks) if (rooms.has(name)) rooms.set(name, moved(rooms.get(name), mark));
    return rooms;
  }

  #stored() {
    try {
      const rooms = JSON.parse(localStorage.getItem(this.#key)) ?? [];
      return new Map(rooms.filter(isRoom).map((room) => [room.name, room]));
    } catch {
      // Storage is blocked, or somebody else wrote there.
      return this.#rooms ?? new Map();
    }
  }
}

function isRoom(room) {
  return [room?.name, room?.read, room?.last].every((text) => typeof text === "string");
}

// How many entries nobody here has read. A log that was flushed counts from 1 again.
export function unread({ read, last }) {
  const more = count(last) - count(read);
  if (compare(last, read) <= 0) return 0;
  return more > 0 ? more : count(last);
}

function moved(room, { read, last }) {
  return { ...room, read: later(room.read, read), last: later(room.last, last) };
}

function later(a, b) {
  return compare(a, b) < 0 ? b : a;
}

function oldest(rooms, but) {
  const others = [...rooms.values()].filter((room) => room.name !== but);
  return others.sort((a, b) => a.pinned - b.pinned || a.openedAt - b.openedAt)[0].name;
}
