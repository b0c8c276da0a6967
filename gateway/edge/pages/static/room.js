// The room's page: ties the client's room and the log to the elements. No rules of its own.

import { FAILED, Hiroba, RETRY, SENT, UNKNOWN, WAITING } from "./client/index.js";
import { Log } from "./log.js";
import { address, confirmsConversion, fill } from "./page.js";

const { room: name, publishTimeoutS, texts: textsJson } = document.body.dataset;
const texts = JSON.parse(textsJson);
const at = (id) => document.querySelector(`#${id}`);
const input = at("chat-message-input");
const submit = at("chat-message-submit");
const state = at("chat-state");
const outbox = at("chat-outbox");
const comeBack = at("chat-return");
const title = document.title;
const rows = new Map();
let unread = 0;

const log = new Log(at("chat-log"), at("chat-spoken"), texts.lang);
const chat = new Hiroba(address(""), { publishTimeout_s: Number(publishTimeoutS) });
const room = chat.join(name);
room.on("state", showState);
room.on("outbox", showOutbox);
room.on("message", ({ message, at }) => {
  log.message(message, at);
  countUnread();
});
room.on("gap", ({ lost }) => log.note(lost === null ? texts.gap_unknown : fill(texts.gap, { lost })));

submit.addEventListener("click", say);
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.repeat && !confirmsConversion(event)) submit.click();
});
comeBack.addEventListener("click", () => {
  input.focus();
  chat.open();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unread = 0;
  document.title = title;
});
// What is kept goes out when the room is next opened.
window.addEventListener("beforeunload", (event) => {
  if (room.outbox.some((item) => !item.kept)) event.preventDefault();
});

// An empty message is a message, as it always was.
function say() {
  const taken = room.send(input.value) !== null;
  at("chat-problem").textContent = taken ? "" : texts.outbox_full;
  if (taken) input.value = "";
  input.focus();
}

function showState({ state: now, code, reason }) {
  const why = texts[`close_${code}`] ?? (reason || code);
  state.dataset.state = now;
  state.textContent = now === "closed" ? fill(texts.closed, { reason: why }) : texts[now];
  comeBack.hidden = now !== "closed";
}

function countUnread() {
  if (!document.hidden) return;
  unread += 1;
  document.title = `(${unread}) ${title}`;
}

// Rows are kept from one showing to the next: a button that has the focus keeps it.
function showOutbox(items) {
  const shown = new Set(items.map((item) => item.ref));
  for (const [ref, row] of rows) {
    if (shown.has(ref)) continue;
    row.line.remove();
    rows.delete(ref);
  }
  for (const [place, item] of items.entries()) {
    if (!rows.has(item.ref)) rows.set(item.ref, newRow(item));
    const row = rows.get(item.ref);
    const there = outbox.children[place] ?? null;
    // What another tab had not sent may be older.
    if (row.line !== there) outbox.insertBefore(row.line, there);
    row.line.dataset.state = item.state;
    row.note.textContent = noteOn(item);
    row.again.hidden = item.state !== UNKNOWN && item.state !== FAILED;
    row.takeBack.hidden = item.state === SENT;
  }
}

function newRow(item) {
  const line = document.createElement("li");
  const words = document.createElement("span");
  const note = document.createElement("small");
  const again = newButton(texts.send_again, () => room.again(item));
  const takeBack = newButton(texts.take_back, () => {
    room.takeBack(item);
    if (input.value === "") input.value = words.textContent;
  });
  words.textContent = typeof item.message === "string" ? item.message : JSON.stringify(item.message);
  line.append(words, note, again, takeBack);
  return { line, note, again, takeBack };
}

function newButton(label, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.addEventListener("click", () => {
    act();
    input.focus();
  });
  return button;
}

function noteOn(item) {
  const reason = item.state === FAILED ? (texts[`failed_${item.reason}`] ?? item.reason) : "";
  const notes = { [WAITING]: texts.item_waiting, [RETRY]: texts.item_retry, [SENT]: texts.item_sent };
  return notes[item.state] ?? fill(texts[`item_${item.state}`], { reason });
}
