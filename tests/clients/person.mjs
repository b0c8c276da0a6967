// The client in Node, at the hands of a test: commands come as JSON lines, what happens goes out as JSON lines.

import { createInterface } from "node:readline";
import { Hiroba } from "../../clients/js/src/index.js";
import { People } from "../../clients/js/src/people.js";

const [url, tokens] = process.argv.slice(2);
const say = (event) => console.log(JSON.stringify(event));
let calls = 0;

let give;

// "a,,?,b": the tokens of the first four connects; an empty one is a failure, a "?" comes when the test gives it.
async function getToken() {
  const token = tokens.split(",")[Math.min(calls++, tokens.split(",").length - 1)];
  say({ on: "asked", event: token });
  if (token === "") throw new Error("no token today");
  return token === "?" ? new Promise((given) => (give = given)) : token;
}

const chat = new Hiroba(url, { ...(tokens ? { getToken } : {}), publishTimeout_s: 0.5 });
for (const name of ["state", "error", "tops", "read"]) chat.on(name, (event) => say({ on: name, event }));

const ids = (users) => users.map(({ id }) => id);

function join(name, options) {
  const room = chat.join(name, options);
  for (const event of ["state", "joined", "message", "gap", "left", "error", "read", "typing", "members"]) {
    room.on(event, (told) => say({ on: event, room: name, event: told }));
  }
  const people = new People(room);
  people.on("typing", ({ users }) => say({ on: "types", room: name, event: users.map((user) => user?.id ?? null) }));
  people.on("members", ({ joined, left, count }) =>
    say({ on: "here", room: name, event: { joined: ids(joined), left: ids(left), count, all: [...people.members.keys()] } }),
  );
  room.on("outbox", (items) => say({ on: "outbox", room: name, event: items.map((item) => [item.message, item.state]) }));
  return room;
}

const rooms = new Map();
const acts = {
  join: ({ room, options }) => rooms.set(room, join(room, options)),
  leave: ({ room }) => rooms.get(room).leave(),
  send: ({ room, message }) => rooms.get(room).send(message).settled.then((id) => say({ on: "settled", room, message, id })),
  read: ({ room, id }) => rooms.get(room).read(id),
  typing: ({ room }) => rooms.get(room).typing(),
  unread: ({ room }) => say({ on: "unread", room, event: rooms.get(room).unread }),
  history: ({ room, options }) =>
    rooms.get(room).history(options).then(
      (event) => say({ on: "history", room, event }),
      ({ code }) => say({ on: "history", room, code }),
    ),
  watch: ({ names }) => chat.watch(names),
  unwatch: ({ names }) => chat.unwatch(names),
  hurry: () => chat.hurry(),
  letGo: () => chat.letGo(),
  give: ({ token }) => give(token),
  close: () => chat.close(),
};
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  acts[command.do](command);
}
