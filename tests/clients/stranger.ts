// What somebody writes against the types; compiled, and never run.

import { Hiroba, WAITING, count, type Item, type Room } from "hiroba";
import { People } from "hiroba/people";

const chat = new Hiroba("https://chat.example.org/", { getToken: async () => "x", user: "alice" });
const room: Room = chat.join("lobby", { history: 50 });
const end: () => void = room.on("message", ({ id, own, message, at }) => {
  const n: number = count(id) + at;
  const mine: boolean = own;
  console.log(n, mine, message);
});
room.on("gap", ({ lost }) => {
  const entries: number | null = lost;
  console.log(entries);
});
const item: Item | null = room.send({ a: [1, null] });
item?.settled.then((id: string | null) => console.log(id, item.state === WAITING));
chat.on("tops", ({ rooms }) => console.log(rooms["lobby"]));
room.history({ limit: 3 }).then(({ entries, more }) => console.log(entries[0]?.id, more));
const people = new People(room);
people.on("members", ({ joined, left, count }) => console.log(joined[0]?.name, left.length, count + (people.count ?? 0)));
people.on("typing", ({ users }) => console.log(users.map((user) => user?.name ?? "somebody")));
room.typing();
room.ask({ type: "presence" }).then(({ members, count }) => console.log(members, count));
// @ts-expect-error there is no such event
room.on("massage", () => {});
// @ts-expect-error no JSON
room.send(() => {});
end();
