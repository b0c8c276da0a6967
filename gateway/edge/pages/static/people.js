// Who is in a room, and who is typing there, on the page. Who they are keeps the client.

import { listed } from "./line.js";
import { fill, make } from "./page.js";
import { face, nameTag, person } from "./who.js";

export class PeopleView {
  #people;
  #list;
  #typing;
  #texts;
  #me = null;
  // Rows by whom they are of, and their name: that may change.
  #rows = new Map();

  // `people`: the client's. `moved(came, went)` is told of others, `counted()` whenever it may be another number.
  constructor(people, list, typing, texts, { moved, counted }) {
    this.#people = people;
    this.#list = list;
    this.#typing = typing;
    this.#texts = texts;
    people.on("typing", () => this.#showTyping());
    people.on("members", ({ joined, left }) => {
      const [came, went] = [this.#others(joined), this.#others(left)];
      if (came.length + went.length > 0) moved(came, went);
      this.#show();
      counted();
    });
  }

  // How many are here; null: nobody knows.
  get count() {
    return this.#people.count;
  }

  // The id of whoever looks; null: somebody without one.
  know(id) {
    this.#me = id;
    this.#show();
  }

  #persons(users) {
    return users.map((user) => person(user, "", this.#texts));
  }

  #others(users) {
    return this.#persons(users).filter(({ id }) => id !== this.#me);
  }

  #showTyping() {
    const people = this.#others(this.#people.typing);
    const sentence = people.length === 1 ? this.#texts.types : this.#texts.type;
    const text = people.length > 0 ? fill(sentence, { names: listed(people, people.length, this.#texts) }) : "";
    this.#typing.textContent = this.#typing.title = text;
  }

  // In the order of their names, whoever looks first; of more than are known by name how many they are.
  #show() {
    const people = this.#persons([...this.#people.members.values()]);
    const order = new Intl.Collator(this.#texts.lang).compare;
    people.sort((a, b) => (b.id === this.#me) - (a.id === this.#me) || order(a.name, b.name));
    this.#rows = new Map(people.map((who) => this.#row(who)));
    const more = (this.count ?? 0) - people.length;
    const sentence = people.length > 0 ? this.#texts.others : this.#texts.here;
    const rest = more > 0 ? [make("li", "rest", fill(sentence, { count: more }))] : [];
    this.#list.replaceChildren(...this.#rows.values(), ...rest);
  }

  #row(who) {
    const label = `${who.key} ${who.name}`;
    const row = this.#rows.get(label) ?? make("li");
    if (row.childElementCount === 0) {
      row.append(face(who), ...nameTag(who, this.#texts), make("small", "me", this.#texts.own));
    }
    row.classList.toggle("own", who.id === this.#me);
    return [label, row];
  }
}
