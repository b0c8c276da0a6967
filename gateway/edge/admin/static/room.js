// One room: who speaks most, what was said last, who is there.

import { deleteMessage, deleteRoom, emptyRoom, kick, OPERATOR } from "./acts.js";
import { get, now, path } from "./api.js";
import { make } from "./page.js";
import { ago, bar, button, heading, keyed, link, number, rate, say, section, texts, when, write } from "./parts.js";
import { announceForm } from "./rooms.js";
import { face, nameTag, person } from "./who.js";
import { words } from "./words.js";

const MESSAGES = 100;
const MINUTE_MS = 60_000;
const SPEAKERS_MAX = 8;

export function view(_, room) {
  const facts = make("p", "facts soft");
  const form = announceForm(() => [room]);
  const speakers = make("ul", "people");
  const messages = make("ol", "messages");
  const members = make("ul", "people");
  const [ofLast, noMembers, noMessages] = [make("p", "soft"), make("p", "soft"), make("p", "soft")];
  const empty = button(texts.empty_room, () => emptyRoom(room), "plain");
  const gone = button(texts.delete_room, () => deleteRoom(room), "harm");
  const left = make("div", "column");
  left.append(section(texts.speakers, ofLast, speakers), section(texts.members, noMembers, members));
  const pair = make("div", "pair");
  pair.append(left, section(texts.last_messages, noMessages, messages));
  const root = make("div");
  const head = heading(room, empty, gone);
  head.prepend(make("span", "kicker soft", texts.room));
  head.querySelector("h1").dir = "auto";
  root.append(head, facts, form.element, pair);

  const told = (entry) => person(entry.user, entry.from, texts);

  function speaker(first) {
    const share = bar();
    const element = make("li");
    element.append(face(first.who), tag(first.who), share.element, ...kicks(first.who, room));
    return { element, update: ({ count, of }) => share.set(count / of, number(count)) };
  }

  function message(entry) {
    const element = make("li");
    const time = make("time", "soft", ago(entry.at));
    time.title = when(entry.at);
    time.dateTime = new Date(entry.at).toISOString();
    if (!entry.deleted) {
      const said = typeof entry.message === "string" ? entry.message : JSON.stringify(entry.message);
      const head = make("p", "by");
      const press = button(texts.delete, () => deleteMessage(room, entry), "plain");
      head.append(face(told(entry)), tag(told(entry)), time, press);
      element.append(head, words(said));
    } else {
      element.className = "deleted";
      element.append(make("p", "soft", texts.deleted), time);
    }
    return { element, update: () => write(time, ago(entry.at)) };
  }

  function member(first) {
    const who = person(first, "", texts);
    const element = make("li");
    element.append(face(who), tag(who), ...kicks(who, room));
    return { element, update: () => {} };
  }

  async function refresh() {
    const [log, here, page] = await Promise.all([
      get(path("rooms", room)).catch(missing),
      get(`/presence?room=${encodeURIComponent(room)}`),
      get(`/history?limit=${MESSAGES}&room=${encodeURIComponent(room)}`),
    ]);
    write(facts, log === null ? texts.room_gone : [
      `${texts.traffic}: ${rate(perMinute(page.entries))}`,
      `${texts.kept}: ${number(log.entries)}`,
      `${texts.last_said}: ${ago(log.last_at)}`,
      `${texts.members}: ${number(here.count)}`,
    ].join(" · "));
    empty.hidden = gone.hidden = log === null;
    const newest = [...page.entries].reverse();
    keyed(messages, newest, ({ id, deleted }) => `${id} ${deleted}`, message);
    write(noMessages, newest.length === 0 ? texts.nothing : "");
    const said = newest.filter(({ deleted }) => !deleted);
    keyed(speakers, loudest(said), ({ who }) => who.key, speaker);
    write(ofLast, said.length === 0 ? texts.nothing : say("of_last", { n: number(said.length) }));
    keyed(members, here.members ?? [], ({ id }) => id, member);
    write(noMembers, here.members === null ? say("members_many", { n: number(here.count) }) : here.count ? "" : texts.nothing);
  }

  function loudest(said) {
    const found = new Map();
    for (const entry of said) {
      const who = told(entry);
      const one = found.get(who.key) ?? { who, count: 0, of: said.length };
      one.count += 1;
      found.set(who.key, one);
    }
    return [...found.values()].sort((a, b) => b.count - a.count).slice(0, SPEAKERS_MAX);
  }

  return { element: root, title: room, refresh };
}

// Of the last minute; of less, where the page is full of what was said in less.
function perMinute(entries) {
  const oldest = entries.length === MESSAGES ? entries[0].at : 0;
  const since = Math.max(oldest, now() - MINUTE_MS);
  const count = entries.filter(({ at }) => at >= since).length;
  return (count / Math.max(1000, now() - since)) * MINUTE_MS;
}

function missing(problem) {
  if (problem.code === "no_room") return null;
  throw problem;
}

// The name, which leads to what is known of the user.
function tag(who) {
  if (who.isNameless) return make("span", "soft", who.name);
  const element = link("", "user", who.id);
  element.className = "to-user";
  element.append(...nameTag(who, texts));
  return element;
}

// Who has no name can't be named, and so not be put out; the operator is nobody who is in.
function kicks(who, room) {
  return who.isNameless || who.id === OPERATOR ? [] : [button(texts.kick, () => kick(who, room), "plain")];
}
