// One line of the log: an entry, a note, or who came and went. Each looks by what stands before it.

import { fill, make } from "./page.js";
import { clock, day, isSameDay, moment } from "./times.js";
import { face, nameTag, person } from "./who.js";
import { words } from "./words.js";

// Entries of one person within so long stand together under one name.
const TOGETHER_MS = 5 * 60 * 1000;
// Of more people the first two are named.
const NAMED_MAX = 3;
// People of one line: then the next begins.
const MOVES_MAX = 100;

// A line has `element`, `text` (as #chat-log has it, its line break too), `id` and `at` (null but of entries), `who`.

// `entry`: the client's.
export function entryLine({ id, from, user, message, at, own }, texts) {
  const said = typeof message === "string" ? message : JSON.stringify(message);
  const who = person(user, from, texts);
  const element = make("li", own ? "entry own" : "entry");
  const head = make("p", "who");
  const time = make("time", "", clock(texts.lang, at));
  time.dateTime = new Date(at).toISOString();
  time.title = moment(texts.lang, at);
  head.append(...nameTag(who, texts), make("span", "unseen", texts.own), time);
  element.append(face(who), head, words(said));
  return { element, text: withName(who, said, texts), id, at, who };
}

// What is no entry: a gap, or what a script of the page wrote.
export function noteLine(text, className = "note") {
  const element = make("li", className);
  element.append(words(text));
  return { element, text: broken(text), id: null, at: null, who: null };
}

// What is left of an entry that was deleted.
export function deletedLine(id, texts) {
  return { ...noteLine(texts.deleted), id };
}

// Who came and who went while nothing was said: of each what they did last.
export class MovesLine {
  #texts;
  // By key, {who, came}.
  #moves = new Map();
  element = make("li", "moves");
  text = "";
  id = null;
  at = null;
  who = null;

  constructor(texts) {
    this.#texts = texts;
  }

  get isFull() {
    return this.#moves.size >= MOVES_MAX;
  }

  add(came, went) {
    for (const who of came) this.#add(who, true);
    for (const who of went) this.#add(who, false);
    const told = [this.#told("came", true), this.#told("went", false)];
    this.element.textContent = told.filter(Boolean).join(" · ");
  }

  #add(who, came) {
    this.#moves.delete(who.key);
    this.#moves.set(who.key, { who, came });
  }

  #told(key, came) {
    const people = [...this.#moves.values()].filter((move) => move.came === came).map(({ who }) => who);
    return people.length === 0 ? "" : fill(this.#texts[key], { names: listed(people, people.length, this.#texts) });
  }
}

// "Ann, Bob and 3 others": of `count` people those who are known, the first few by name. Each name keeps its direction to
// itself (U+2068, U+2069).
export function listed(people, count, texts) {
  const named = people.slice(0, count > NAMED_MAX ? NAMED_MAX - 1 : NAMED_MAX);
  const names = named.map(({ name }) => `\u2068${name}\u2069`);
  if (names.length < count) names.push(fill(texts.others, { count: count - names.length }));
  return new Intl.ListFormat(texts.lang, { type: "conjunction" }).format(names);
}

// A new day has its date; who goes on to speak needs no name again. `before`: the line above, undefined: none.
// `lastAt`: of the last entry above, null: none.
export function fit(line, before, lastAt, lang) {
  if (line.at === null) return;
  const { element, at, who } = line;
  const isNewDay = lastAt === null || !isSameDay(lastAt, at);
  element.querySelector(".day")?.remove();
  if (isNewDay) {
    const date = make("time", "day", day(lang, at));
    date.dateTime = new Date(at).toISOString().slice(0, 10);
    element.prepend(date);
  }
  const goesOn = !isNewDay && before?.who?.key === who.key && at - before.at < TOGETHER_MS;
  element.classList.toggle("more", goesOn);
}

function withName(who, said, texts) {
  if (who.isNameless) return broken(said);
  return broken(`${who.isGuest ? fill(texts.guest, { name: who.name }) : who.name}: ${said}`);
}

// A textarea turns \r\n into \n by itself; our text must be its text.
function broken(text) {
  return `${text.replace(/\r\n?/g, "\n")}\n`;
}
