// Who is in a room, and who types in it: kept of what the server says of both. Beside the client, not in it: a page that
// shows neither need not load this.

import { Events } from "./events.js";

export class People extends Events {
  #timer = null;
  // By id. Of a room with very many people the server tells how many they are, and not who.
  members = new Map();
  // How many are here; null: nobody said it yet.
  count = null;
  // Who types: users, and null for each who has no name.
  typing = [];

  // To be made as soon as the room is: `new People(chat.join("lobby", { presence: true }))`.
  constructor(room) {
    super();
    room.on("joined", (frame) => this.#come(frame));
    room.on("members", (frame) => this.#change(frame));
    room.on("typing", ({ users, for_s }) => this.#type(users, for_s));
    room.on("message", ({ user }) => this.#speak(user));
    room.on("state", ({ state }) => state === "connected" || this.#type([]));
  }

  // The whole list, at each connect. Who is new in it has come meanwhile, unless this is the first one.
  #come({ members = [], count }) {
    if (count === undefined) return;
    const now = new Map(members.map((user) => [user.id, user]));
    const isFirst = this.count === null;
    const joined = isFirst ? [] : members.filter(({ id }) => !this.members.has(id));
    const left = [...this.members.values()].filter(({ id }) => !now.has(id));
    this.members = now;
    this.#count(joined, left, count);
  }

  #change({ joined = [], left = [], count }) {
    for (const { id } of left) this.members.delete(id);
    for (const user of joined) this.members.set(user.id, user);
    this.#count(joined, left, count);
  }

  #count(joined, left, count) {
    this.count = count;
    this.tell("members", { joined, left, count });
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
