// What was said and has not arrived, on the page: each text with its state, and what one can do about it.

import { FAILED, RETRY, SENT, UNKNOWN, WAITING } from "./client/index.js";
import { fill, make } from "./page.js";

export class OutboxRows {
  #list;
  #texts;
  #acts;
  // By ref.
  #rows = new Map();

  // `acts`: again(item), takeBack(item, text).
  constructor(list, texts, acts) {
    this.#list = list;
    this.#texts = texts;
    this.#acts = acts;
  }

  // Rows are kept from one showing to the next: a button that has the focus keeps it.
  show(items) {
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
    const there = this.#list.children[place] ?? null;
    // What another tab had not sent may be older.
    if (row.line !== there) this.#list.insertBefore(row.line, there);
    row.line.dataset.state = item.state;
    row.note.textContent = this.#noteOn(item);
    row.again.hidden = item.state !== UNKNOWN && item.state !== FAILED;
    row.takeBack.hidden = item.state === SENT;
  }

  #newRow(item) {
    const text = typeof item.message === "string" ? item.message : JSON.stringify(item.message);
    const line = make("li");
    const words = make("span", "", text);
    const note = make("small");
    const again = newButton(this.#texts.send_again, () => this.#acts.again(item));
    const takeBack = newButton(this.#texts.take_back, () => this.#acts.takeBack(item, text));
    words.dir = "auto";
    words.title = text;
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
  const button = make("button", "", label);
  button.type = "button";
  button.addEventListener("click", act);
  return button;
}
