// The room's log on the page: a textarea, as in the old chats, so text is text whatever it holds.
// It keeps the newest lines, follows the end unless somebody is reading further up, and leaves selections alone.

// Messages kept, and characters: a day of a busy room scrolls by in a tab that nobody closes.
const MESSAGES_MAX = 1000;
const CHARS_MAX = 300_000;
// Cut in slices, not at every message.
const SLACK = 1.2;
// Messages that arrive within one frame are painted together.
const PAINT_MS = 16;
// This near to the end (pixels) counts as reading along.
const END_PX = 48;
// A silence after which the time is noted before the next message.
const SILENCE_MS = 10 * 60 * 1000;
// What a screen reader is given to say; the rest is in the textarea.
const SPOKEN_MAX = 10;

export class Log {
  #area;
  #spoken;
  #lang;
  // Lines not painted yet, and the lengths of those that are.
  #fresh = [];
  #lengths = [];
  #chars = 0;
  #timer = null;
  #at = null;
  // The scroll position while it is not on the page; null: it is there, or the reader follows the end.
  #place = null;

  constructor(area, spoken, lang) {
    this.#area = area;
    this.#spoken = spoken;
    this.#lang = lang;
  }

  // `at`: Unix milliseconds of the entry.
  message(message, at) {
    if (this.#at !== null && at - this.#at > SILENCE_MS) this.note(`— ${this.#clock(at)} —`);
    this.#at = at;
    this.note(typeof message === "string" ? message : JSON.stringify(message));
  }

  note(text) {
    // A textarea turns \r\n into \n by itself; our lengths must be its lengths.
    this.#fresh.push(`${text.replace(/\r\n?/g, "\n")}\n`.slice(-CHARS_MAX));
    // A hidden tab's timers may come once a minute.
    if (this.#fresh.length > MESSAGES_MAX) this.#fresh.shift();
    this.#timer ??= setTimeout(() => this.#paint(), PAINT_MS);
  }

  // Back on the page, where the reader left it. A text area that is taken off the page forgets that.
  show() {
    this.#area.scrollTop = this.#place ?? this.#area.scrollHeight;
    this.#place = null;
  }

  hide() {
    this.#place = this.#following ? null : this.#area.scrollTop;
  }

  get #following() {
    const { scrollHeight, scrollTop, clientHeight } = this.#area;
    return scrollHeight - scrollTop - clientHeight < END_PX;
  }

  #paint() {
    this.#timer = null;
    const area = this.#area;
    const following = this.#following;
    this.#insert(this.#fresh);
    this.#cut();
    if (following) area.scrollTop = area.scrollHeight;
    for (const line of this.#fresh.slice(-SPOKEN_MAX)) this.#speak(line);
    this.#fresh = [];
  }

  #insert(lines) {
    // setRangeText, not value +=: it leaves selection and scroll position where the reader has them.
    this.#area.setRangeText(lines.join(""), this.#chars, this.#chars, "preserve");
    for (const line of lines) {
      this.#lengths.push(line.length);
      this.#chars += line.length;
    }
  }

  #cut() {
    if (this.#lengths.length <= MESSAGES_MAX * SLACK && this.#chars <= CHARS_MAX * SLACK) return;
    let cut = 0;
    let lines = 0;
    while (this.#lengths.length - lines > MESSAGES_MAX || this.#chars - cut > CHARS_MAX) {
      cut += this.#lengths[lines++];
    }
    this.#area.setRangeText("", 0, cut, "preserve");
    this.#lengths.splice(0, lines);
    this.#chars -= cut;
  }

  #speak(line) {
    const said = document.createElement("p");
    said.textContent = line;
    this.#spoken.append(said);
    if (this.#spoken.childElementCount > SPOKEN_MAX) this.#spoken.firstElementChild.remove();
  }

  #clock(at) {
    const format = { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" };
    return new Intl.DateTimeFormat(this.#lang, format).format(at);
  }
}
