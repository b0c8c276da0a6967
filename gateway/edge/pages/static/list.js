// The list of rooms on the page: what is known of each, and buttons to pin and remove it.

import { unread } from "./known.js";
import { address, fill } from "./page.js";
import { clock, date, isSameDay, moment } from "./times.js";

const UNREAD_SHOWN_MAX = 999;

export class List {
  #nav;
  #lines;
  #texts;
  #acts;
  #rows = new Map();
  #pending = null;

  // `acts`: pin(name, pinned) and forget(name). A row's link has its room's name in data-room.
  constructor(nav, texts, acts) {
    this.#nav = nav;
    this.#lines = nav.querySelector("ol");
    this.#texts = texts;
    this.#acts = acts;
  }

  // Once per frame at most: marks move with every message. `rooms()` gives them in their order.
  show(rooms, current) {
    if (this.#pending === null) requestAnimationFrame(() => this.#paint());
    this.#pending = { rooms, current };
  }

  #paint() {
    const { current } = this.#pending;
    const rooms = this.#pending.rooms();
    this.#pending = null;
    const names = new Set(rooms.map(({ name }) => name));
    for (const [name, row] of this.#rows) {
      if (names.has(name)) continue;
      const beside = row.line.nextElementSibling ?? row.line.previousElementSibling;
      if (row.line.contains(document.activeElement)) beside?.querySelector("a").focus();
      row.line.remove();
      this.#rows.delete(name);
    }
    for (const room of rooms) {
      const row = this.#rows.get(room.name) ?? this.#newRow(room.name);
      this.#fill(row, room, room.name === current);
    }
    this.#nav.hidden = rooms.length === 0;
    this.#order(rooms);
  }

  // Nothing moves away from who goes through the list by keyboard, but for what was just pinned.
  #order(rooms) {
    const focused = this.#nav.contains(document.activeElement) ? document.activeElement : null;
    if (focused !== null && !focused.classList.contains("pin")) return;
    rooms.forEach(({ name }, place) => {
      const { line } = this.#rows.get(name);
      const there = this.#lines.children[place];
      if (line !== there) this.#lines.insertBefore(line, there);
    });
    focused?.focus();
  }

  #newRow(name) {
    const line = document.createElement("li");
    const link = document.createElement("a");
    const words = document.createElement("bdi");
    const time = document.createElement("time");
    const shown = document.createElement("b");
    const said = document.createElement("span");
    const row = { line, link, time, shown, said };
    link.href = address(`chat/${encodeURIComponent(name)}/`);
    link.dataset.room = link.title = words.textContent = name;
    words.dir = "auto";
    shown.setAttribute("aria-hidden", "true");
    said.className = "unseen";
    link.append(words, time, shown, said);
    row.pin = this.#newButton("pin", name, () => this.#acts.pin(name, row.pin.ariaPressed !== "true"));
    line.append(link, row.pin, this.#newButton("forget", name, () => this.#acts.forget(name)));
    this.#lines.append(line);
    this.#rows.set(name, row);
    return row;
  }

  #newButton(act, room, clicked) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = act;
    button.title = button.ariaLabel = fill(this.#texts[act], { room });
    button.addEventListener("click", clicked);
    return button;
  }

  #fill(row, room, isCurrent) {
    const now = [room.read, room.last, room.pinned, isCurrent].join();
    if (row.now === now) return;
    row.now = now;
    const count = unread(room);
    const at = parseInt(room.last, 10);
    if (isCurrent) row.link.setAttribute("aria-current", "page");
    else row.link.removeAttribute("aria-current");
    row.pin.ariaPressed = String(room.pinned);
    row.shown.textContent = count > UNREAD_SHOWN_MAX ? `${UNREAD_SHOWN_MAX}+` : count || "";
    row.said.textContent = count ? fill(this.#texts.unread, { count }) : "";
    row.time.textContent = at ? this.#clock(at) : "";
    if (!at) return;
    row.time.dateTime = new Date(at).toISOString();
    row.time.title = fill(this.#texts.spoke, { when: moment(this.#texts.lang, at) });
  }

  #clock(at) {
    const { lang } = this.#texts;
    return isSameDay(at, Date.now()) ? clock(lang, at) : date(lang, at);
  }
}
