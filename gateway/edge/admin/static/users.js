// One user, by id: where they are connected, and how they are put out.

import { erase, kick, revoke } from "./acts.js";
import { get, path } from "./api.js";
import { make } from "./page.js";
import { ago, button, heading, keyed, link, row, say, section, table, texts, write } from "./parts.js";

const COLUMNS = [["session", ""], ["node", ""], ["rooms", "wide"], ["wire", ""], ["address", ""], ["since", ""]];

export function search() {
  const form = make("form", "announce sheet");
  const field = make("input");
  field.type = "text";
  field.dir = "auto";
  field.required = true;
  field.placeholder = texts.user_question;
  field.setAttribute("aria-label", texts.user_question);
  form.append(field, make("button", "", texts.look));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `#/user/${encodeURIComponent(field.value)}`;
  });
  const root = make("div");
  root.append(heading(texts.users), form);
  return { element: root, title: texts.users, refresh: async () => {} };
}

export function view(_, id) {
  const who = { id, name: id };
  const { element, body } = table(texts.connections, COLUMNS);
  const [none, silent, erased] = [make("p", "soft"), make("p", "alarm"), make("p", "soft")];
  const acts = make("p", "buttons");
  acts.append(
    button(texts.kick, () => kick(who), "harm"),
    button(texts.revoke, () => revoke(who), "plain"),
    button(texts.erase, () => erase(who), "plain"),
  );
  const root = make("div");
  const head = heading(id, acts);
  head.prepend(make("span", "kicker soft", texts.user));
  head.querySelector("h1").dir = "auto";
  root.append(head, erased, section(texts.connections, none, silent, element));

  function line(first) {
    const [rooms, since] = [make("ul", "inline"), make("time")];
    return {
      element: row([make("span", "mono", first.session)], [make("span", "mono", first.node)], [rooms, "wide"], [first.wire], [first.peer], [since]),
      update(one) {
        keyed(rooms, one.rooms, String, (room) => {
          const item = make("li");
          item.append(link(room, "room", room));
          return { element: item, update: () => {} };
        });
        write(since, ago(one.opened_at * 1000));
      },
    };
  }

  async function refresh() {
    const [state, erasure] = await Promise.all([get(path("users", id)), get(path("users", id, "messages"))]);
    keyed(body, state.connections, ({ node, session }) => `${node} ${session}`, line);
    element.hidden = state.connections.length === 0;
    write(none, state.connections.length === 0 ? texts.not_connected : "");
    write(silent, state.silent.length > 0 ? say("silent_nodes", { nodes: state.silent.join(", ") }) : "");
    write(erased, erasure.state === "none" ? "" : say(`erase_${erasure.state}`, erasure));
  }

  return { element: root, title: id, refresh };
}
