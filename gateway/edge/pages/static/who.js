// Who somebody is to the eye: a name, initials, and a colour that is theirs on every page and every day.

import { make } from "./page.js";

// As many as hiroba.css has.
const COLOURS = 12;
// How the ids of guests begin, and nobody else's: core/user.py.
const GUEST = "guest:";

// `user`: {id, name}, or null of somebody who said no name: then the session that it came `from` tells one from another.
export function person(user, from, texts) {
  const { id = null, name = "" } = user ?? {};
  return {
    id,
    key: id ?? `session:${from}`,
    name: name || texts.nameless,
    isGuest: id !== null && id.startsWith(GUEST),
    isNameless: id === null,
  };
}

// A disc with initials: only for the eye, the name stands beside it.
export function face(who) {
  const disc = make("span", "face", who.isNameless ? "?" : initials(who.name));
  disc.dataset.colour = colour(who.key);
  disc.setAttribute("aria-hidden", "true");
  return disc;
}

// The name in its colour, and whether it is a guest's.
export function nameTag(who, texts) {
  const name = make("bdi", "name", who.name);
  name.dataset.colour = colour(who.key);
  name.title = who.name;
  if (!who.isGuest) return [name];
  return [name, make("small", "guest", texts.guest_mark)];
}

// FNV-1a: 12 colours come out even, and the same everywhere.
function colour(key) {
  let hash = 0x811c9dc5;
  for (let place = 0; place < key.length; place++) {
    hash = Math.imul(hash ^ key.charCodeAt(place), 0x01000193);
  }
  return String((hash >>> 0) % COLOURS);
}

// Of the first and the last word; scripts without capitals have names of few signs, of which the first one says enough.
function initials(name) {
  const words = name.split(/[\s_.@-]+/u).filter((word) => /[\p{L}\p{N}]/u.test(word));
  if (words.length === 0) return first(name);
  const [one, last] = [first(words[0]), first(words.at(-1))];
  return (words.length > 1 && /\p{Lu}/u.test(last.toUpperCase()) ? one + last : one).toUpperCase();
}

function first(word) {
  const start = word.slice(Math.max(word.search(/[\p{L}\p{N}]/u), 0));
  if (!Intl.Segmenter) return Array.from(start)[0] ?? "?";
  const [letter] = new Intl.Segmenter().segment(start);
  return letter?.segment ?? "?";
}
