// One room on the page: its log, its outbox, its people, what is being typed. Several may be open; one is shown.

import { compare, count } from "./client/index.js";
import { People } from "./client/people.js";
import { Log } from "./log.js";
import { OutboxRows } from "./outbox.js";
import { fill } from "./page.js";
import { PeopleView } from "./people.js";

// Older entries are loaded this near to the top of the log (pixels), so many at a time.
const TOP_PX = 200;
const PAGE_ENTRIES = 50;

const at = (id) => document.querySelector(`#${id}`);
const state = at("chat-state");
const comeBack = at("chat-return");
const earlier = at("chat-earlier");
const news = at("chat-news");
const people = at("people-show");
const heading = at("room-view").querySelector("h1");
// Every open room has its own of these; the shown one's are on the page.
const parts = ["chat-lines", "chat-spoken", "chat-outbox", "chat-typing", "people-list"];
const empty = parts.map((id) => at(id).cloneNode());

export class OpenRoom {
  #texts;
  #composer;
  #parts = empty.map((part) => part.cloneNode());
  #log;
  #people;
  #state;
  #draft = "";
  #shown = false;
  #mayWrite = true;
  // A page of older entries is under way.
  #loading = false;
  // Id of the log's first entry, once the server said that it is.
  #first = null;
  // Of a join that was refused for good, the protocol's code.
  #refused = null;

  // `room`: the client's. `page`: {texts, composer, mirror}. `heard(entry)`: there is something new in it.
  constructor(room, { texts, composer, mirror }, heard) {
    const [lines, spoken, outbox, typing, list] = this.#parts;
    this.room = room;
    this.#texts = texts;
    this.#composer = composer;
    this.#log = new Log(lines, spoken, texts, mirror, {
      scrolled: (top_px) => top_px < TOP_PX && this.loadEarlier(),
      news: () => this.#showNews(),
    });
    this.#people = new PeopleView(new People(room), list, typing, texts, {
      moved: (came, went) => this.#log.moves(came, went),
      counted: () => this.#showCount(),
    });
    this.#state = { state: room.state };
    this.#hear(new OutboxRows(outbox, texts, this.#acts()), heard);
  }

  #hear(outbox, heard) {
    const { room } = this;
    room.on("state", (event) => this.#hasState(event));
    room.on("error", ({ code }) => (this.#refused = code));
    room.on("outbox", (items) => outbox.show(items));
    room.on("message", (entry) => {
      this.#log.message(entry);
      this.#showEarlier();
      heard(entry);
    });
    room.on("gap", (gap) => this.#log.note(this.#gapNote(gap)));
    room.on("deleted", ({ id, up_to: upTo }) =>
      this.#log.delete((one) => one === id || (upTo !== undefined && compare(one, upTo) <= 0)),
    );
    room.on("joined", (frame) => {
      this.#mayWrite = frame.rights?.includes("w") ?? true;
      this.#showRights();
    });
  }

  #acts() {
    const composer = this.#composer;
    const then = (act) => (item, text) => {
      act(item, text);
      composer.focus();
    };
    return {
      again: then((item) => this.room.again(item)),
      takeBack: then((item, text) => {
        this.room.takeBack(item);
        if (composer.text === "") composer.text = text;
      }),
    };
  }

  show() {
    this.#shown = true;
    parts.forEach((id, place) => at(id).replaceWith(this.#parts[place]));
    heading.textContent = heading.title = this.room.name;
    this.#composer.text = this.#draft;
    this.#showState();
    this.#showEarlier();
    this.#showNews();
    this.#showCount();
    this.#showRights();
    this.#log.show();
  }

  hide() {
    this.#shown = false;
    this.#draft = this.#composer.text;
  }

  // The id of whoever looks; null: somebody without one.
  know(id) {
    this.#log.know(id);
    this.#people.know(id);
  }

  // False: no more can wait.
  say(text) {
    const taken = this.room.send(text) !== null;
    if (taken) this.#log.toEnd();
    return taken;
  }

  toEnd() {
    this.#log.toEnd();
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
    for (const entry of entries) entry.own = entry.from === this.room.session;
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

  #showNews() {
    if (!this.#shown) return;
    news.hidden = this.#log.news === 0;
    news.textContent = fill(this.#texts.news, { count: this.#log.news });
  }

  #showCount() {
    if (!this.#shown) return;
    const { count: here } = this.#people;
    people.hidden = here === null;
    people.textContent = fill(this.#texts.here, { count: here });
    document.body.dataset.people = here === null ? "unknown" : "known";
  }

  #showRights() {
    if (this.#shown) this.#composer.may = this.#mayWrite;
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
    const texts = this.#texts;
    const why = texts[`closed_${this.#refused ?? reason}`] ?? texts[`close_${code}`] ?? (reason || code);
    state.dataset.state = now;
    state.textContent = now === "closed" ? fill(texts.closed, { reason: why }) : texts[now];
    state.title = state.textContent;
    comeBack.hidden = now !== "closed";
  }
}
