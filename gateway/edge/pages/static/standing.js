// Why one is not let in, and the way back. A browser does not tell a page why a handshake was refused, so the page asks
// by HTTP: `GET /me` is answered as the handshake would be.

import { address, fill } from "./page.js";

// Between two questions, while tries to connect fail.
const ASK_MS = 5000;
// Reasons of which there is more to say than their status has.
const REASONS = new Set(["token_expired", "revoked", "kicked", "forbidden"]);

export class Standing {
  #texts;
  #lines = document.querySelectorAll(".standing");
  #askedAt = -Infinity;
  #isAsking = false;
  // It is known who looks at this page.
  #isMet = false;
  // It was let in since the last try.
  #isIn = false;
  #known;

  // `known(user)`: who looks at this page, {id, name}; null: somebody who has said no name.
  constructor(texts, known) {
    this.#texts = texts;
    this.#known = known;
  }

  // Of the page's connection, as the client tells it. `room`: the name of the one that is shown; null: none.
  changed({ state, code }, room) {
    if (state === "connected") {
      this.#isIn = true;
      this.#say("", null);
      if (!this.#isMet) this.#askNow(room);
    } else if (state === "closed") {
      this.#closed(code, room);
    } else if (state === "reconnecting") {
      // What was there and broke comes back as a rule; a try that failed may have been refused.
      if (!this.#isIn) this.ask(room);
      this.#isIn = false;
    }
  }

  ask(room) {
    if (performance.now() - this.#askedAt >= ASK_MS) this.#askNow(room);
  }

  async #askNow(room) {
    if (this.#isAsking) return;
    this.#isAsking = true;
    this.#askedAt = performance.now();
    const url = address("me");
    if (room !== null) url.searchParams.set("room", room);
    try {
      const answer = await fetch(url, { cache: "no-store" });
      const told = await answer.json();
      this.#isMet ||= answer.ok;
      if (answer.ok) this.#known(told.user);
      else if (!this.#isIn) this.#tell(answer.status, told);
    } catch {
      // No node is there: the state line says so.
    }
    this.#isAsking = false;
  }

  #closed(code, room) {
    this.#isIn = false;
    if (code === 4003) this.#say(this.#texts.standing_kicked, null);
    if (code !== 4001) return;
    this.#say(this.#texts.standing_ended, null);
    // Where to log in.
    this.#askNow(room);
  }

  #tell(status, { reason, login_url }) {
    const key = REASONS.has(reason) ? reason : status;
    const text = this.#texts[`standing_${key}`];
    if (text) this.#say(text, status === 401 ? login_url : null);
  }

  #say(text, login_url) {
    for (const line of this.#lines) {
      const [words, link] = line.children;
      words.textContent = text;
      link.hidden = !login_url;
      if (login_url) link.href = fill(login_url, { page: encodeURIComponent(location.href) });
      line.hidden = text === "";
    }
  }
}
