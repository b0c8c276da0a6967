// The room's page: ties the connection, the outbox and the log to the elements. No rules of its own.

import { Connection } from "./connection.js";
import { Log } from "./log.js";
import { FAILED, Outbox, RETRY, SENT, UNKNOWN, WAITING } from "./outbox.js";
import { confirmsConversion, fill } from "./page.js";

const { room, publishTimeoutS, texts: textsJson } = document.body.dataset;
const texts = JSON.parse(textsJson);
const at = (id) => document.querySelector(`#${id}`);
const input = at("chat-message-input");
const submit = at("chat-message-submit");
const state = at("chat-state");
const comeBack = at("chat-return");
const title = document.title;
const rows = new Map();
let unread = 0;

const log = new Log(at("chat-log"), at("chat-spoken"), texts.lang);
const outbox = new Outbox((frame) => connection.send(frame), showOutbox, Number(publishTimeoutS));
const connection = new Connection(room, {
  state: showState,
  welcome: (frame, resumed) => outbox.welcome(frame.session, !resumed || frame.recovered),
  caughtUp: () => outbox.caughtUp(),
  entry: (frame) => {
    outbox.entry(frame);
    log.message(frame.message, frame.at);
    countUnread();
  },
  gap: (lost) => {
    outbox.gap();
    log.note(lost === null ? texts.gap_unknown : fill(texts.gap, { lost }));
  },
  ack: (frame) => outbox.ack(frame),
  error: (frame) => outbox.error(frame),
  away: () => outbox.away(),
  lost: (code, late_s) => outbox.lost(code, late_s),
});

submit.addEventListener("click", say);
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.repeat && !confirmsConversion(event)) submit.click();
});
comeBack.addEventListener("click", () => {
  showState("reconnecting");
  input.focus();
  connection.open();
});
window.addEventListener("offline", () => connection.letGo());
window.addEventListener("online", () => connection.hurry());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  connection.hurry();
  unread = 0;
  document.title = title;
});
window.addEventListener("beforeunload", (event) => {
  if (outbox.items.length > 0) event.preventDefault();
});
connection.open();

// An empty message is a message, as it always was.
function say() {
  const kept = outbox.add(input.value);
  at("chat-problem").textContent = kept ? "" : texts.outbox_full;
  if (kept) input.value = "";
  input.focus();
}

function showState(name, code, reason) {
  const why = texts[`close_${code}`] ?? (reason || code);
  state.dataset.state = name;
  state.textContent = name === "closed" ? fill(texts.closed, { reason: why }) : texts[name];
  comeBack.hidden = name !== "closed";
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
  for (const item of items) {
    if (!rows.has(item.ref)) rows.set(item.ref, newRow(item));
    const row = rows.get(item.ref);
    row.line.dataset.state = item.state;
    row.note.textContent = noteOn(item);
    row.again.hidden = item.state !== UNKNOWN && item.state !== FAILED;
    row.takeBack.hidden = item.state === SENT;
  }
}

function newRow({ ref, text }) {
  const line = document.createElement("li");
  const words = document.createElement("span");
  const note = document.createElement("small");
  const again = newButton(texts.send_again, () => outbox.again(ref));
  const takeBack = newButton(texts.take_back, () => {
    outbox.remove(ref);
    if (input.value === "") input.value = text;
  });
  words.textContent = text;
  line.append(words, note, again, takeBack);
  at("chat-outbox").append(line);
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
  const reason = item.state === FAILED ? texts[`failed_${item.reason}`] : "";
  const notes = { [WAITING]: texts.item_waiting, [RETRY]: texts.item_retry, [SENT]: texts.item_sent };
  return notes[item.state] ?? fill(texts[`item_${item.state}`], { reason });
}
