// What an operator does to people and rooms: asked first, then done.

import { path, post, remove } from "./api.js";
import { ask, done } from "./ask.js";
import { say, texts, when } from "./parts.js";

const FOR_S = [600, 5, 3600, 86400, 2592000];
// Who announces, to everybody.
export const OPERATOR = "hiroba:operator";

// `who`: {id, name}. `room`: the one that one looks at, or none.
export async function kick(who, room = null) {
  const where = ["room", texts.where, [...(room === null ? [] : [["room", say("of_room", { room })]]), ["", texts.everywhere]]];
  const howLong = ["for_s", texts.for_how_long, FOR_S.map((s) => [String(s), texts[`for_${s}`]])];
  const user = named(who);
  const meant = await ask({
    title: say("kick_title", { user }),
    text: texts.kick_text,
    yes: texts.kick,
    fields: [where, howLong],
    isHarm: true,
  });
  if (meant === null) return;
  const order = { user: who.id, for_s: Number(meant.for_s), ...(meant.room ? { room } : {}) };
  await done(
    () => post("/disconnect", order),
    ({ until, heard }) => say(heard ? "kicked" : "kicked_late", { user, until: when(until) }),
  );
}

// Nothing is lost by it: not asked first. `room`: "", all.
export function lift(user, room) {
  return done(() => post("/disconnect", { user, lift: true, ...(room ? { room } : {}) }), say("lifted", { user }));
}

export async function revoke(who) {
  const user = named(who);
  if ((await ask({ title: say("revoke_title", { user }), text: texts.revoke_text, yes: texts.revoke, isHarm: true })) === null) return;
  await done(() => post("/revoke", { user: who.id }), say("revoked", { user }));
}

export async function erase(who) {
  const user = named(who);
  if ((await ask({ title: say("erase_title", { user }), text: texts.erase_text, yes: texts.erase, isHarm: true })) === null) return;
  await done(() => remove(path("users", who.id, "messages")), say("erasing", { user }));
}

export async function deleteMessage(room, { id, message }) {
  const said = typeof message === "string" ? message : JSON.stringify(message);
  const text = `“${said.length > 200 ? `${said.slice(0, 200)}…` : said}” ${texts.delete_text}`;
  if ((await ask({ title: texts.delete_title, text, yes: texts.delete, isHarm: true })) === null) return;
  await done(() => remove(path("rooms", room, "messages", id)), ({ deleted }) => say("deleted_n", { n: deleted }));
}

export async function emptyRoom(room) {
  if ((await ask({ title: say("empty_title", { room }), text: texts.empty_text, yes: texts.empty_room, isHarm: true })) === null) return;
  await done(() => remove(path("rooms", room, "messages")), ({ deleted }) => say("deleted_n", { n: deleted }));
}

export async function deleteRoom(room) {
  const meant = await ask({
    title: say("delete_room_title", { room }),
    text: texts.delete_room_text,
    yes: texts.delete_room,
    isHarm: true,
  });
  if (meant === null) return;
  await done(() => remove(path("rooms", room)), ({ deleted }) => say("deleted_n", { n: deleted }));
}

// True: it was said in all of them.
export function announce(rooms, message) {
  const body = { rooms, message, user: { id: OPERATOR, name: texts.operator } };
  return done(
    () => post("/broadcast", body),
    ({ results, failed }) => say("announced", { n: results.length - failed }),
  );
}

function named({ id, name }) {
  return name && name !== id ? `${name} (${id})` : id;
}
