// The page: which rooms are open, which one is shown, and the list of those that this browser knows. All on one
// connection; from room to room no document is loaded.

import { Hiroba } from "./client/index.js";
import { START } from "./client/ids.js";
import { prepare as prepareAside } from "./aside.js";
import { prepare as prepareChoosing } from "./choose.js";
import { Composer } from "./composer.js";
import { prepare as prepareGuest } from "./guest.js";
import { Known } from "./known.js";
import { List } from "./list.js";
import { prepare as prepareMenu } from "./menu.js";
import { Mirror } from "./mirror.js";
import { notify } from "./notices.js";
import { address, fill } from "./page.js";
import { OpenRoom } from "./room.js";
import { Standing } from "./standing.js";
import { person } from "./who.js";

// Rooms that stay joined, with their logs. Above it the one goes that was not shown for the longest time, unless
// something in it is not sent yet.
const OPEN_MAX = 5;

const { dataset } = document.body;
const texts = JSON.parse(dataset.texts);
const at = (id) => document.querySelector(`#${id}`);
const composer = new Composer(texts, Number(dataset.messageBytesMax), {
  say: (text) => shown.say(text),
  typing: () => shown.room.typing(),
});
const page = { texts, composer, mirror: new Mirror(at("chat-log")) };
const chat = new Hiroba(address(""), { publishTimeout_s: Number(dataset.publishTimeoutS) });
const known = new Known(address("").pathname, (rooms) => {
  if (rooms) watch();
  showList();
});
const list = new List(at("rooms"), texts, { pin: (name, pinned) => known.pin(name, pinned), forget });
// By name, the one shown last at the end.
const open = new Map();
const watched = new Set();
const standing = new Standing(texts, met);
// Who looks at this page: their id; null: not known yet, or somebody who has said no name.
let me = null;
// Null while a room is being chosen.
let shown = null;
// What was said in the shown room while nobody looked.
let unseen = 0;

prepareChoosing(texts);
// The page, for its sockets are somebody else's.
prepareGuest(texts, () => location.reload());
prepareMenu(texts);
prepareAside();
history.replaceState({ room: dataset.room }, "");
show(dataset.room);
standing.ask(dataset.room || null);
chat.on("state", (event) => standing.changed(event, shown?.room.name ?? null));
chat.on("tops", ({ rooms, read = {} }) => {
  for (const [name, id] of Object.entries(rooms)) known.grew(name, id);
  for (const [name, id] of Object.entries(read)) known.read(name, id);
});
// Of the rooms that are open it is told to each of them, with what its join brings.
chat.on("read", ({ room, id }) => known.read(room, id));

window.addEventListener("popstate", ({ state }) => {
  if (state === null) location.reload();
  else show(state.room);
});
// A link to a room, or to the choice of one, in this window.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-room]");
  if (link === null || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.dataset.room, link.href);
  if (link.dataset.focus) at(link.dataset.focus).focus();
});
at("chat-earlier").addEventListener("click", () => {
  composer.focus();
  shown.loadEarlier();
});
at("chat-news").addEventListener("click", () => {
  composer.focus();
  shown.toEnd();
});
at("chat-return").addEventListener("click", () => {
  composer.focus();
  comeBack();
});
document.addEventListener("visibilitychange", seen);
// What is kept goes out when the room is next opened.
window.addEventListener("beforeunload", (event) => {
  const items = [...open.values()].flatMap(({ room }) => room.outbox);
  if (items.some((item) => !item.kept)) event.preventDefault();
});

function go(name, href) {
  if (name !== history.state?.room) history.pushState({ room: name }, "", href);
  show(name);
}

// Shows a room, or with "" the choice of one.
function show(name) {
  shown?.hide();
  shown = name === "" ? null : opened(name);
  document.body.dataset.view = shown === null ? "choose" : "room";
  shown?.show();
  if (known.has(name)) known.opened(name);
  seen();
  watch();
  showList();
  // Where there is no mouse, a focus would bring up the keyboard and cover what is to be read.
  if (matchMedia("(hover: hover)").matches) at(shown === null ? "room-name-input" : "chat-message-input").focus();
}

function opened(name) {
  const view = open.get(name) ?? newView(name);
  open.delete(name);
  open.set(name, view);
  for (const [other, { room }] of open) {
    if (open.size > OPEN_MAX && other !== name && room.outbox.length === 0) close(other);
  }
  return view;
}

function newView(name) {
  const room = chat.join(name, { presence: true });
  const view = new OpenRoom(room, page, (entry) => {
    known.grew(name, room.lastId);
    notify(name, entry, () => go(name, address(`chat/${encodeURIComponent(name)}/`)));
    if (view !== shown) return;
    if (document.hidden) unseen += 1;
    seen();
  });
  view.know(me);
  room.on("joined", ({ last_id }) => {
    if (!known.has(name)) known.opened(name);
    known.grew(name, last_id);
    if (view === shown && !document.hidden) room.read(last_id);
    known.read(name, room.readId ?? START);
  });
  room.on("read", ({ id }) => {
    known.read(name, id);
    seen();
  });
  return view;
}

function close(name) {
  const view = open.get(name);
  open.delete(name);
  // Watched first: a connection with nothing on it would end.
  watch();
  view.room.leave();
}

function forget(name) {
  known.forget(name);
  if (shown?.room.name === name) go("", address("chat/"));
  if (open.has(name)) close(name);
}

// After a close that was final. A room that the server refused is asked for anew.
function comeBack() {
  const { name } = shown.room;
  if (chat.rooms.includes(shown.room)) chat.open();
  else {
    open.delete(name);
    show(name);
  }
}

// The server's answer to who looks at this page.
function met(user) {
  me = user?.id ?? null;
  for (const view of open.values()) view.know(me);
  at("menu-me").textContent = user === null ? "" : fill(texts.you_are, { name: user.name });
  // Whom the site knows need not say a name.
  if (user !== null && !person(user, "", texts).isGuest) at("guest").hidden = true;
  at("chat-name").hidden = user !== null || at("guest").hidden;
}

// Of all rooms that are known we hear how far they grow, and up to where the same person has read on another device.
function watch() {
  const wanted = new Set(known.names);
  const more = [...wanted].filter((name) => !watched.has(name));
  const less = [...watched].filter((name) => !wanted.has(name));
  if (more.length > 0) chat.watch(more);
  if (less.length > 0) chat.unwatch(less);
  for (const name of more) watched.add(name);
  for (const name of less) watched.delete(name);
}

// Whoever looks at a room has read it, here or on another device.
function seen() {
  const { room } = shown ?? {};
  if (!document.hidden && room?.lastId) {
    room.read();
    known.read(room.name, room.lastId);
  }
  if (!document.hidden || room?.unread === 0) unseen = 0;
  const title = `${shown?.room.name ?? texts.choose_title} · hiroba`;
  document.title = unseen === 0 ? title : `(${unseen}) ${title}`;
}

function showList() {
  list.show(() => known.sorted, shown?.room.name);
}
