// The field for a message, and its button: it grows with its lines, says when little space is left, and keeps the text
// of whoever is refused. Enter sends, Shift+Enter begins a line.

import { confirmsConversion, fill } from "./page.js";

const at = (id) => document.querySelector(`#${id}`);
// Of a frame, besides the text: its keys, a room's name, a number.
const FRAME_BYTES = 1000;
// The count is shown in the last fifth.
const NEAR = 0.2;
// No sign takes more in JSON: "\u001f".
const BYTES_A_CHAR_MAX = 6;

export class Composer {
  #field = at("chat-message-input");
  #problem = at("chat-problem");
  #left = at("chat-left");
  #texts;
  #bytes_max;

  // `acts`: say(text), which is false where it can't be taken, and typing().
  constructor(texts, messageBytesMax, acts) {
    this.#texts = texts;
    this.#bytes_max = Math.max(messageBytesMax - FRAME_BYTES, messageBytesMax / 2);
    const say = () => this.#say(acts.say);
    at("chat-message-submit").addEventListener("click", say);
    this.#field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || confirmsConversion(event)) return;
      event.preventDefault();
      if (!event.repeat) say();
    });
    this.#field.addEventListener("input", () => {
      this.#fit();
      if (this.#field.value !== "") acts.typing();
    });
  }

  get text() {
    return this.#field.value;
  }

  // Another room's draft, or a text that was taken back.
  set text(text) {
    this.#field.value = text;
    this.#problem.textContent = "";
    this.#fit();
  }

  // False: this room is only to be read.
  set may(may) {
    this.#field.closest(".composer").hidden = !may;
    at("chat-read-only").hidden = may;
  }

  focus() {
    this.#field.focus();
  }

  // An empty message is a message, as it always was.
  #say(say) {
    const left = this.#bytesLeft();
    if (left < 0) this.#problem.textContent = fill(this.#texts.too_long, { bytes: -left });
    else if (say(this.text)) this.text = "";
    else this.#problem.textContent = this.#texts.outbox_full;
    this.focus();
  }

  #fit() {
    const { style } = this.#field;
    style.height = "auto";
    // Its borders are not in scrollHeight.
    style.height = `${this.#field.scrollHeight + this.#field.offsetHeight - this.#field.clientHeight}px`;
    const left = this.#bytesLeft();
    this.#left.hidden = left > this.#bytes_max * NEAR;
    this.#left.dataset.over = String(left < 0);
    this.#left.textContent = this.#left.hidden ? "" : fill(this.#texts.bytes_left, { bytes: left });
  }

  // As the server counts: bytes of JSON. Short texts, nearly all, are not counted.
  #bytesLeft() {
    const { length } = this.text;
    if (length * BYTES_A_CHAR_MAX < this.#bytes_max * (1 - NEAR)) return this.#bytes_max;
    return this.#bytes_max - new TextEncoder().encode(JSON.stringify(this.text)).length;
  }
}
