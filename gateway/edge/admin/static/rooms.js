// The rooms, by what is said in them. How much that is needs no counter: the second half of an id counts a room's
// messages, so that the newest id, looked at twice, tells how many came between.

import { get } from "./api.js";
import { announce } from "./acts.js";
import { make } from "./page.js";
import { ago, button, heading, keyed, link, number, rate, row, say, section, table, texts, write } from "./parts.js";

const PAGE = 200;
const PAGES_MAX = 5;
const SHOWN_MAX = 200;
// Traffic is that of so long.
const WINDOW_MS = 60_000;

export class Traffic {
  // By room: [when, how many were ever said], the oldest first.
  #seen = new Map();

  // Messages a minute; null: it was looked at only once.
  of(room, lastId, now) {
    const n = Number(lastId.split("-")[1]);
    let seen = this.#seen.get(room) ?? [];
    // The count begins anew where a room was deleted.
    if (seen.length > 0 && seen.at(-1)[1] > n) seen = [];
    seen = [...seen.filter(([at]) => now - at < WINDOW_MS), [now, n]];
    this.#seen.set(room, seen);
    const [[at, first]] = seen;
    return now > at ? ((n - first) / (now - at)) * 60_000 : null;
  }
}

const COLUMNS = [["", "tick"], ["room", ""], ["traffic", "number"], ["kept", "number"], ["last_said", ""]];
const BY = {
  traffic: (a, b) => (b.traffic ?? -1) - (a.traffic ?? -1) || b.last_at - a.last_at,
  kept: (a, b) => b.entries - a.entries,
  last_said: (a, b) => b.last_at - a.last_at,
  room: (a, b) => a.room.localeCompare(b.room),
};

export function view() {
  const traffic = new Traffic();
  const ticked = new Set();
  let rooms = [];
  let isCut = false;
  let by = "traffic";

  const search = make("input");
  search.type = "search";
  search.placeholder = texts.search;
  search.setAttribute("aria-label", texts.search);
  search.addEventListener("input", show);
  const { element, body, head } = table(texts.rooms, COLUMNS);
  for (const cell of head.querySelectorAll("th")) sortable(cell, COLUMNS[cell.cellIndex][0]);
  const note = make("p", "soft");
  const form = announceForm(() => [...ticked], () => {
    ticked.clear();
    for (const box of body.querySelectorAll("input")) box.checked = false;
    form.update();
  });
  const root = make("div");
  root.append(heading(texts.rooms, search), form.element, section(texts.rooms, element, note));

  function sortable(cell, key) {
    const press = button(cell.textContent, () => {
      by = key;
      show();
    }, "sort");
    cell.replaceChildren(press);
    cell.dataset.key = key;
  }

  function line(first) {
    const box = make("input");
    box.type = "checkbox";
    box.checked = ticked.has(first.room);
    box.setAttribute("aria-label", say("tick", { room: first.room }));
    box.addEventListener("change", () => {
      if (box.checked) ticked.add(first.room);
      else ticked.delete(first.room);
      form.update();
    });
    const [busy, kept, last] = [make("span"), make("span"), make("time")];
    return {
      element: row([box, "tick"], [link(first.room, "room", first.room)], [busy, "number"], [kept, "number"], [last]),
      update(room) {
        write(busy, rate(room.traffic));
        write(kept, number(room.entries));
        write(last, ago(room.last_at));
        last.dateTime = new Date(room.last_at).toISOString();
      },
    };
  }

  function show() {
    const wanted = search.value.trim().toLowerCase();
    const found = rooms.filter(({ room }) => room.toLowerCase().includes(wanted)).sort(BY[by]);
    for (const cell of head.querySelectorAll("th")) {
      if (cell.dataset.key === by) cell.setAttribute("aria-sort", by === "room" ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    }
    keyed(body, found.slice(0, SHOWN_MAX), ({ room }) => room, line);
    const left = found.length - SHOWN_MAX;
    const notes = [left > 0 && say("more", { n: number(left) }), isCut && say("only_first", { n: number(rooms.length) })];
    write(note, found.length === 0 ? texts.nothing : notes.filter(Boolean).join(" "));
  }

  async function refresh() {
    const found = new Map();
    let after = "";
    for (let page = 0; page < PAGES_MAX && after !== null; page++) {
      const { rooms: some, next } = await get(`/rooms?limit=${PAGE}&after=${encodeURIComponent(after)}`);
      for (const room of some) found.set(room.room, room);
      after = next;
    }
    const now = Date.now();
    isCut = after !== null;
    rooms = [...found.values()].map((room) => ({ ...room, traffic: traffic.of(room.room, room.last_id, now) }));
    show();
    // Each look reads every room: of many, not as often.
    return found.size > PAGE ? 10_000 : undefined;
  }

  return { element: root, title: texts.rooms, refresh };
}

// `rooms`: which ones, when it is sent. `sent`: what then.
export function announceForm(rooms, sent = () => {}) {
  const form = make("form", "announce sheet");
  const field = make("input");
  field.type = "text";
  field.dir = "auto";
  field.setAttribute("aria-label", texts.announce_label);
  const press = make("button", "", texts.announce);
  const hint = make("span", "soft");
  form.append(field, press, hint);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!field.value.trim() || rooms().length === 0) return;
    press.disabled = true;
    if (await announce(rooms(), field.value)) {
      field.value = "";
      sent();
    }
    update();
  });
  function update() {
    const { length } = rooms();
    press.disabled = length === 0;
    field.placeholder = texts.announce_label;
    press.textContent = length > 1 ? say("announce_to", { n: number(length) }) : texts.announce;
    hint.textContent = length === 0 ? texts.announce_hint : "";
    hint.hidden = length > 0;
  }
  update();
  return { element: form, update };
}
