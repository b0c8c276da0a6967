// What stands now, and what was ordered and deleted last: by whom, about whom.

import { lift } from "./acts.js";
import { get } from "./api.js";
import { make } from "./page.js";
import { ago, button, heading, keyed, link, row, say, section, table, texts, when, write } from "./parts.js";

const WORDS = 100;

export function view() {
  const standing = table(texts.standing, [["what", ""], ["whom", "wide"], ["until", ""], ["", ""]]);
  const words = table(texts.words, [["when", ""], ["what", ""], ["whom", "wide"], ["until", ""], ["by", ""]]);
  const [noStanding, noWords] = [make("p", "soft"), make("p", "soft")];
  const root = make("div");
  root.append(
    heading(texts.control),
    section(texts.standing, noStanding, standing.element),
    section(texts.words, noWords, words.element),
  );

  async function refresh() {
    const log = await get(`/control?limit=${WORDS}`);
    keyed(standing.body, log.standing, ({ kind, user, room, token }) => JSON.stringify([kind, user, room, token]), (first) => {
      const until = make("span");
      const { kind, user, room = "" } = first;
      const act = kind === "kick" ? button(texts.lift, () => lift(user, room), "plain") : "";
      return { element: row([kindOf(first)], [about(first), "wide"], [until], [act, "acts"]), update: (one) => write(until, when(one.until)) };
    });
    standing.element.hidden = log.standing.length === 0;
    write(noStanding, log.standing.length === 0 ? texts.standing_none : "");
    keyed(words.body, log.words, ({ id }) => id, (word) => {
      const time = make("time", "", ago(word.at));
      time.title = when(word.at);
      const until = word.until ? when(word.until) : "–";
      const by = word.by || texts.given_again;
      return {
        element: row([time], [kindOf(word)], [about(word), "wide"], [until], [make("span", "mono", by)]),
        update: () => write(time, ago(word.at)),
      };
    });
    words.element.hidden = log.words.length === 0;
    write(noWords, log.words.length === 0 ? texts.words_none : "");
  }

  return { element: root, title: texts.control, refresh };
}

function kindOf({ kind, lifted, gone, emptied }) {
  const known = lifted ? "lifted" : gone ? "gone" : emptied ? "emptied" : kind;
  const element = make("span", "state", texts[`kind_${known}`] ?? kind);
  element.dataset.state = known;
  return element;
}

function about({ kind, user = "", room = "", token = "", messages = 0, emptied = false, gone = false }) {
  const parts = [];
  if (user) parts.push(link(user, "user", user));
  else if (kind === "issued") parts.push(texts.everybody);
  if (token) parts.push(make("span", "mono", token));
  if (room) parts.push(link(room, "room", room));
  else if (kind === "kick") parts.push(texts.everywhere);
  if (kind === "deletion" && !emptied && !gone) parts.push(say("messages_n", { n: messages }));
  const element = make("span");
  parts.forEach((part, at) => element.append(...(at > 0 ? [" · "] : []), part));
  return element;
}
