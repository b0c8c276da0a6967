// One room on the page: its log, its outbox, what is being typed. Several may be open; one is shown.

import { FAILED, RETRY, SENT, UNKNOWN, WAITING, compare, count } from "./client/index.js";
import { Log } from "./log.js";
import { fill } from "./page.js";

// Older entries are loaded this near to the top of the log (pixels), so many at a time.
const TOP_PX = 200;
const PAGE_ENTRIES = 50;

const at = (id) => document.querySelector(`#${id}`);
const input = at("chat-message-input");
const state = at("chat-state");
const problem = at("chat-problem");
const comeBack = at("chat-return");
const earlier = at("chat-earlier");
const heading = at("room-view").querySelector("h1");
// Every open room has its own of these; the shown one's are on the page.
const parts = ["chat-log", "chat-spoken", "chat-outbox"];
const empty = parts.map((id) => at(id).cloneNode());

export class OpenRoom {
  #texts;
  #parts = empty.map((part) => part.cloneNode());
  #log;
  #outbox;
  #rows = new Map();
  #state;
  #draft = "";
  #shown = false;
  // A page of older entries is under way.
  #loading = false;
  // Id of the log's first entry, once the server said that it is.
  #first = null;

  // `room`: the client's. `heard()`: there is something new in it.
  constructor(room, texts, heard) {
    const [area, spoken, outbox] = this.#parts;
    this.room = room;
    this.#texts = texts;
    this.#log = new Log(area, spoken, texts);
    this.#outbox = outbox;
    this.#state = { state: room.state };
    room.on("state", (event) => this.#hasState(event));
    room.on("outbox", (items) => this.#showOutbox(items));
    room.on("message", (entry) => {
      this.#log.message(entry);
      this.#showEarlier();
      heard();
    });
    room.on("gap", (gap) => this.#log.note(this.#gapNote(gap)));
    area.addEventListener("scroll", () => area.scrollTop < TOP_PX && this.loadEarlier());
  }

  show() {
    this.#shown = true;
    parts.forEach((id, place) => at(id).replaceWith(this.#parts[place]));
    heading.textContent = heading.title = this.room.name;
    input.value = this.#draft;
    problem.textContent = "";
    this.#showState();
    this.#showEarlier();
    this.#log.show();
  }

  hide() {
    this.#shown = false;
    this.#draft = input.value;
    this.#log.hide();
  }

  // An empty message is a message, as it always was.
  say() {
    const taken = this.room.send(input.value) !== null;
    problem.textContent = taken ? "" : this.#texts.outbox_full;
    if (taken) input.value = "";
    input.focus();
  }

  // A page of what was said before the oldest entry here. What can't be had now is asked for at the next scroll or click.
  async loadEarlier() {
    const before = this.#log.oldest?.id;
    if (this.#loading || !this.#hasEarlier()) return;
    this.#loading = true;
    try {
      const page = await this.room.history({ before, limit: PAGE_ENTRIES });
      // The log may have been cut meanwhile.
      if (before === this.#log.oldest?.id) this.#prepend(page);
    } catch {
      // Refused for now, or the connection is lost: the state line says so.
    }
    this.#loading = false;
    this.#showEarlier();
  }

  #prepend({ entries, gaps, more }) {
    const place = ({ id, before }) => id ?? before;
    // A gap comes before the entry at which it ends.
    const items = [...gaps, ...entries].sort((a, b) => compare(place(a), place(b)));
    this.#log.prepend(items.map((item) => (item.id ? item : this.#gapNote(item))));
    if (!more) this.#first = this.#log.oldest.id;
  }

  #hasEarlier() {
    const id = this.#log.oldest?.id;
    return id !== undefined && count(id) > 1 && id !== this.#first && this.#log.hasSpace;
  }

  #showEarlier() {
    if (this.#shown) earlier.hidden = !this.#hasEarlier();
  }

  #gapNote({ lost }) {
    return lost === null ? this.#texts.gap_unknown : fill(this.#texts.gap, { lost });
  }

  #hasState(event) {
    this.#state = event;
    if (this.#shown) this.#showState();
  }

  #showState() {
    const { state: now, code, reason } = this.#state;
    const why = this.#texts[`close_${code}`] ?? (reason || code);
    state.dataset.state = now;
    state.textContent = now === "closed" ? fill(this.#texts.closed, { reason: why }) : this.#texts[now];
    comeBack.hidden = now !== "closed";
  }

  // Rows are kept from one showing to the next: a button that has the focus keeps it.
  #showOutbox(items) {
    const shown = new Set(items.map((item) => item.ref));
    for (const [ref, row] of this.#rows) {
      if (shown.has(ref)) continue;
      row.line.remove();
      this.#rows.delete(ref);
    }
    items.forEach((item, place) => this.#showItem(item, place));
  }

  #showItem(item, place) {
    if (!this.#rows.has(item.ref)) this.#rows.set(item.ref, this.#newRow(item));
    const row = this.#rows.get(item.ref);
    const there = this.#outbox.children[place] ?? null;
    // What another tab had not sent may be older.
    if (row.line !== there) this.#outbox.insertBefore(row.line, there);
    row.line.dataset.state = item.state;
    row.note.textContent = this.#noteOn(item);
    row.again.hidden = item.state !== UNKNOWN && item.state !== FAILED;
    row.takeBack.hidden = item.state === SENT;
  }

  #newRow(item) {
    const line = document.createElement("li");
    const words = document.createElement("span");
    const note = document.createElement("small");
    const again = newButton(this.#texts.send_again, () => this.room.again(item));
    const takeBack = newButton(this.#texts.take_back, () => {
      this.room.takeBack(item);
      if (input.value === "") input.value = words.textContent;
    });
    words.textContent = typeof item.message === "string" ? item.message : JSON.stringify(item.message);
    line.append(words, note, again, takeBack);
    return { line, note, again, takeBack };
  }

  #noteOn(item) {
    const texts = this.#texts;
    const reason = item.state === FAILED ? (texts[`failed_${item.reason}`] ?? item.reason) : "";
    const notes = { [WAITING]: texts.item_waiting, [RETRY]: texts.item_retry, [SENT]: texts.item_sent };
    return notes[item.state] ?? fill(texts[`item_${item.state}`], { reason });
  }
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
