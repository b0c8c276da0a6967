// The room's log on the page: a textarea, as in the old chats, so text is text whatever it holds.
// It keeps the newest lines, follows the end unless somebody is reading further up, and leaves selections alone.

// Messages kept, and characters: a day of a busy room scrolls by in a tab that nobody closes.
const MESSAGES_MAX = 1000;
const CHARS_MAX = 300_000;
// So many times that while somebody reads further up, and loads what is older.
const READING_BACK = 4;
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
  #guest;
  // Lines not painted yet, {text, id, at}, and those that are, {length, id, at}; a note has no id.
  #fresh = [];
  #lines = [];
  #chars = 0;
  #timer = null;
  #at = null;
  // The scroll position while it is not on the page; null: it is there, or the reader follows the end.
  #place = null;

  constructor(area, spoken, { lang, guest }) {
    this.#area = area;
    this.#spoken = spoken;
    this.#lang = lang;
    this.#guest = guest;
  }

  // The oldest entry that is shown, {id, at}; undefined: none.
  get oldest() {
    return this.#lines.find(isEntry) ?? this.#fresh.find(isEntry);
  }

  // There is space for older ones.
  get hasSpace() {
    return this.#lines.length < MESSAGES_MAX * READING_BACK && this.#chars < CHARS_MAX * READING_BACK;
  }

  // An entry: `id`, and `at` in Unix milliseconds.
  message(entry) {
    if (this.#at !== null && entry.at - this.#at > SILENCE_MS) this.note(this.#silence(entry.at));
    this.#at = entry.at;
    this.#add(lineOf(entry, this.#guest));
  }

  note(text) {
    this.#add(noteOf(text));
  }

  // Entries above all others, oldest first, and notes, which are texts, between them. What is looked at stays in place.
  prepend(items) {
    const lines = this.#withSilences(items);
    const area = this.#area;
    const below = area.scrollHeight - area.scrollTop;
    area.setRangeText(lines.map(({ text }) => text).join(""), 0, 0, "preserve");
    this.#lines.unshift(...lines.map(painted));
    this.#chars += lines.reduce((sum, { text }) => sum + text.length, 0);
    area.scrollTop = area.scrollHeight - below;
  }

  #withSilences(items) {
    const { oldest } = this;
    const lines = [];
    let last = null;
    for (const item of [...items, oldest]) {
      // A text has a method of that name.
      const at = typeof item === "string" ? null : (item?.at ?? null);
      if (at !== null && last !== null && at - last > SILENCE_MS) lines.push(noteOf(this.#silence(at)));
      last = at ?? last;
      if (item !== oldest) lines.push(at === null ? noteOf(item) : lineOf(item, this.#guest));
    }
    return lines;
  }

  #add(line) {
    this.#fresh.push(line);
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
    this.#cut(following ? 1 : READING_BACK);
    if (following) area.scrollTop = area.scrollHeight;
    for (const { text } of this.#fresh.slice(-SPOKEN_MAX)) this.#speak(text);
    this.#fresh = [];
  }

  #insert(lines) {
    // setRangeText, not value +=: it leaves selection and scroll position where the reader has them.
    this.#area.setRangeText(lines.map(({ text }) => text).join(""), this.#chars, this.#chars, "preserve");
    for (const line of lines) {
      this.#lines.push(painted(line));
      this.#chars += line.text.length;
    }
  }

  #cut(times) {
    const messages_max = MESSAGES_MAX * times;
    const chars_max = CHARS_MAX * times;
    if (this.#lines.length <= messages_max * SLACK && this.#chars <= chars_max * SLACK) return;
    let cut = 0;
    let lines = 0;
    while (this.#lines.length - lines > messages_max || this.#chars - cut > chars_max) {
      cut += this.#lines[lines++].length;
    }
    this.#area.setRangeText("", 0, cut, "preserve");
    this.#lines.splice(0, lines);
    this.#chars -= cut;
  }

  #speak(line) {
    const said = document.createElement("p");
    said.textContent = line;
    this.#spoken.append(said);
    if (this.#spoken.childElementCount > SPOKEN_MAX) this.#spoken.firstElementChild.remove();
  }

  #silence(at) {
    const format = { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" };
    return `— ${new Intl.DateTimeFormat(this.#lang, format).format(at)} —`;
  }
}

// Who says it, where somebody with a name does; `guest`: the words that tell one from users of the site.
function lineOf({ id, user, message, at }, guest) {
  const text = typeof message === "string" ? message : JSON.stringify(message);
  if (!user) return { ...noteOf(text), id, at };
  const name = user.id.startsWith("guest:") ? guest.replace("{name}", () => user.name) : user.name;
  return { ...noteOf(`${name}: ${text}`), id, at };
}

// A textarea turns \r\n into \n by itself; our lengths must be its lengths.
function noteOf(text) {
  return { text: `${text.replace(/\r\n?/g, "\n")}\n`.slice(-CHARS_MAX), id: null, at: null };
}

function isEntry({ id }) {
  return id !== null;
}

function painted({ text, id, at }) {
  return { length: text.length, id, at };
}
