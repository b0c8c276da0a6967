// The room's log on the page. It keeps the newest lines, follows the end unless somebody is reading further up, and says
// then how many are new. What a line looks like: line.js.

import { MovesLine, deletedLine, entryLine, fit, noteLine } from "./line.js";
import { make } from "./page.js";

// Lines kept, and characters: a day of a busy room scrolls by in a tab that nobody closes.
const LINES_MAX = 1000;
const CHARS_MAX = 300_000;
// So many times that while somebody reads further up, and loads what is older.
const READING_BACK = 4;
// Cut in slices, not at every message.
const SLACK = 1.2;
// Messages that arrive within one frame are painted together.
const PAINT_MS = 16;
// This near to the end (pixels) counts as reading along.
const END_PX = 48;
// What a screen reader is given to say; the rest is in the list.
const SPOKEN_MAX = 10;

export class Log {
  #list;
  #spoken;
  #texts;
  #mirror;
  #hears;
  // Lines not painted yet, and those that are.
  #fresh = [];
  #lines = [];
  #chars = 0;
  #timer = null;
  // The id of whoever looks; null: not known, or somebody without one.
  #me = null;
  // The reader stands at the end, and stays there.
  #follows = true;
  // Entries that came below what is looked at.
  #news = 0;
  // Somebody took away what there was: it is not loaded again.
  #isCleared = false;
  // The last scroll position; it is kept while the list is not on the page.
  #place = 0;

  // `hears`: scrolled(top_px), and news(count) when that changes.
  constructor(list, spoken, texts, mirror, hears) {
    this.#list = list;
    this.#spoken = spoken;
    this.#texts = texts;
    this.#mirror = mirror;
    this.#hears = hears;
    list.addEventListener("scroll", () => this.#scrolled());
    // Its height changes with the message field, the keyboard of a phone, a window.
    new ResizeObserver(() => this.#follows && this.#goToEnd()).observe(list);
  }

  // The oldest entry that is shown, {id, at}; undefined: none.
  get oldest() {
    return this.#lines.find(isEntry) ?? this.#fresh.find(isEntry);
  }

  // There is space for older ones.
  get hasSpace() {
    return !this.#isCleared && this.#lines.length < LINES_MAX * READING_BACK && this.#chars < CHARS_MAX * READING_BACK;
  }

  // What is painted, as #chat-log has it.
  get text() {
    return this.#lines.map(({ text }) => text).join("");
  }

  get news() {
    return this.#news;
  }

  message(entry) {
    if (entry.own) this.#follows = true;
    this.#add(this.#marked(entryLine(entry, this.#texts)));
  }

  note(text) {
    this.#add(noteLine(text));
  }

  // A line of whoever wrote to #chat-log, who may look at once what stands there.
  plain(text) {
    this.#add(noteLine(text, "plain"));
    this.#paint();
  }

  moves(came, went) {
    let last = this.#fresh.at(-1) ?? this.#lines.at(-1);
    if (!(last instanceof MovesLine) || last.isFull) {
      last = new MovesLine(this.#texts);
      this.#add(last);
    }
    last.add(came, went);
    if (this.#follows) this.#goToEnd();
  }

  // It is known now who looks: what is theirs is marked, from whatever device they said it.
  know(id) {
    this.#me = id;
    for (const line of [...this.#lines, ...this.#fresh]) this.#marked(line);
  }

  // Entries above all others, oldest first, and notes, which are texts, between them. What is looked at stays in place.
  prepend(items) {
    const lines = items.map((item) => {
      if (typeof item === "string") return noteLine(item);
      return item.deleted ? deletedLine(item.id, this.#texts) : this.#marked(entryLine(item, this.#texts));
    });
    this.#keepPlace(() => {
      this.#list.prepend(...lines.map(({ element }) => element));
      this.#lines.unshift(...lines);
      this.#chars += sum(lines);
      this.#fit(0, lines.length + 1);
    });
    this.#mirror.renew(this);
  }

  // The words of this entry are gone, or of all up to one; their places stay.
  delete(isDeleted) {
    for (const lines of [this.#fresh, this.#lines]) {
      for (const [place, line] of lines.entries()) {
        if (line.id === null || !isDeleted(line.id)) continue;
        lines[place] = deletedLine(line.id, this.#texts);
        line.element.replaceWith(lines[place].element);
      }
    }
    this.#spoken.replaceChildren();
    this.#chars = sum(this.#lines);
    this.#fit(0, this.#lines.length);
    this.#mirror.renew(this);
  }

  clear() {
    this.#fresh = [];
    this.#lines = [];
    this.#chars = 0;
    this.#isCleared = true;
    this.#list.replaceChildren();
    this.#mirror.renew(this);
  }

  // Back on the page, where the reader left it. A list that is taken off the page forgets that.
  show() {
    this.#mirror.follow(this);
    if (this.#follows) this.#goToEnd();
    else this.#list.scrollTop = this.#place;
  }

  toEnd() {
    this.#follows = true;
    this.#goToEnd();
    this.#setNews(0);
  }

  #goToEnd() {
    this.#list.scrollTop = this.#list.scrollHeight;
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#list;
    // Off the page.
    if (clientHeight === 0) return;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < END_PX;
    // Only who scrolls up leaves the end: it also moves away when lines come, or the list gets smaller.
    if (isAtEnd || scrollTop < this.#place) this.#follows = isAtEnd;
    this.#place = scrollTop;
    if (this.#follows) this.#setNews(0);
    this.#list.dataset.end = String(isAtEnd);
    this.#hears.scrolled(scrollTop);
  }

  #setNews(count) {
    if (count === this.#news) return;
    this.#news = count;
    this.#hears.news(count);
  }

  #add(line) {
    this.#fresh.push(line);
    // A hidden tab's timers may come once a minute.
    if (this.#fresh.length > LINES_MAX) this.#fresh.shift();
    this.#timer ??= setTimeout(() => this.#paint(), PAINT_MS);
  }

  #paint() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const fresh = this.#fresh;
    this.#fresh = [];
    this.#list.append(...fresh.map(({ element }) => element));
    this.#lines.push(...fresh);
    this.#chars += sum(fresh);
    this.#fit(this.#lines.length - fresh.length, this.#lines.length);
    this.#mirror.add(this, fresh.map(({ text }) => text).join(""));
    this.#cut(this.#follows ? 1 : READING_BACK);
    if (this.#follows) this.toEnd();
    else this.#setNews(this.#news + fresh.filter(isEntry).length);
    for (const { text } of fresh.slice(-SPOKEN_MAX)) if (text) this.#speak(text);
    // Where all fits in, nobody can scroll up for more.
    if (this.#list.clientHeight > 0 && this.#list.scrollHeight <= this.#list.clientHeight) this.#hears.scrolled(0);
  }

  // The lines from `start` up to `end` by what stands above them.
  #fit(start, end) {
    let above = start - 1;
    while (above >= 0 && this.#lines[above].at === null) above--;
    let lastAt = this.#lines[above]?.at ?? null;
    for (let place = start; place < Math.min(end, this.#lines.length); place++) {
      const line = this.#lines[place];
      fit(line, this.#lines[place - 1], lastAt, this.#texts.lang);
      lastAt = line.at ?? lastAt;
    }
  }

  #cut(times) {
    const lines_max = LINES_MAX * times;
    const chars_max = CHARS_MAX * times;
    if (this.#lines.length <= lines_max * SLACK && this.#chars <= chars_max * SLACK) return;
    let count = 0;
    while (this.#lines.length - count > lines_max || (this.#chars > chars_max && count < this.#lines.length - 1)) {
      this.#chars -= this.#lines[count++].text.length;
    }
    this.#keepPlace(() => {
      for (const { element } of this.#lines.splice(0, count)) element.remove();
      this.#fit(0, 1);
    });
    this.#mirror.renew(this);
  }

  // While something changes above what is looked at.
  #keepPlace(change) {
    const list = this.#list;
    const below = list.scrollHeight - list.scrollTop;
    change();
    if (!this.#follows) list.scrollTop = list.scrollHeight - below;
    else this.#goToEnd();
  }

  #marked(line) {
    if (this.#me !== null && line.who?.id === this.#me) line.element.classList.add("own");
    return line;
  }

  #speak(line) {
    this.#spoken.append(make("p", "", line));
    if (this.#spoken.childElementCount > SPOKEN_MAX) this.#spoken.firstElementChild.remove();
  }
}

function isEntry({ id }) {
  return id !== null;
}

function sum(lines) {
  return lines.reduce((chars, { text }) => chars + text.length, 0);
}
