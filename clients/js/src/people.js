// Who is in a room, and who types in it: kept of what the server says of both. Beside the client, not in it: a page that
// shows neither need not load this.

import { Events } from "./events.js";

export class People extends Events {
  #timer = null;
  // The pages of a list so far.
  #pages = [];
  // Who was here when it was last known; null: it never was.
  #known = null;
  // By id; empty where they are so many that the server tells how many, and not who.
  members = new Map();
  // How many are here; null: nobody said it yet.
  count = null;
  // Who types: users, and null for each who has no name.
  typing = [];

  // To be made as soon as the room is: `new People(chat.join("lobby", { presence: true }))`.
  constructor(room) {
    super();
    room.on("joined", (frame) => this.#take(frame));
    // What somebody asked for by a request of his own is his.
    room.on("presence", (frame) => (frame.type === "joined" || frame.ref === undefined) && this.#take(frame));
    room.on("members", (frame) => this.#change(frame));
    room.on("typing", ({ users, for_s }) => this.#type(users, for_s));
    room.on("message", ({ user }) => this.#speak(user));
    room.on("state", ({ state }) => state === "connected" || this.#type([]));
  }

  // A list, whole or a page of it. Without members: pages follow, or they are too many; without a count: nobody asked.
  #take({ type, members, count, more }) {
    if (count === undefined) return;
    if (type === "joined") this.#pages = [];
    if (!members) {
      this.#become(new Map(), count);
      return;
    }
    this.#pages.push(...members);
    if (more) return;
    const now = new Map(this.#pages.map((user) => [user.id, user]));
    this.#pages = [];
    this.#become(now, count, this.#known ?? now);
    this.#known = now;
  }

  #change({ joined, left, count }) {
    const now = new Map(joined && this.members);
    for (const { id } of left ?? []) now.delete(id);
    for (const user of joined ?? []) now.set(user.id, user);
    this.#become(now, count, joined && this.members);
    if (joined) this.#known = now;
  }

  // `before`: those of whom it is told who came and who went; who is told of anew, with another name, did neither.
  #become(now, count, before = now) {
    this.members = now;
    this.count = count;
    const without = (some, others) => [...some.values()].filter(({ id }) => !others.has(id));
    this.tell("members", { joined: without(now, before), left: without(before, now), count });
  }

  // A list counts until the next one, for so many seconds at most.
  #type(users, for_s) {
    clearTimeout(this.#timer);
    if (users.length > 0) this.#timer = setTimeout(() => this.#type([]), for_s * 1000);
    const changed = JSON.stringify(users) !== JSON.stringify(this.typing);
    this.typing = users;
    if (changed) this.tell("typing", { users });
  }

  // Who has said it types no more, whatever the next list will say.
  #speak(user) {
    const place = this.typing.findIndex((one) => one?.id === user?.id);
    if (place < 0) return;
    this.typing = this.typing.filter((_, at) => at !== place);
    this.tell("typing", { users: this.typing });
  }
}
