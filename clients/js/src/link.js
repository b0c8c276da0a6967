// The road to a node: one socket at a time, its heartbeat, and coming back after a loss. It knows no rooms.

const SUBPROTOCOL = "hiroba.v1";
const TOKEN_PREFIX = "hiroba.token.";
// Full jitter: a wait anywhere between 0 and the step, so that a thousand pages don't come back in one moment. Within
// the first minute steps stay short: a server that starts cold refuses for some seconds, and people wait for it.
const STEP_FIRST_S = 0.5;
const STEP_MAX_S = 5;
const MINUTE_S = 60;
const STEP_LATE_MAX_S = 30;
// A node may ask for any pause; this is the longest that we take its word for.
const PAUSE_MAX_S = 300;
// After so long a connection was good, and the next loss begins with the first step again.
const STEADY_S = 10;
// No welcome within this time: the token or the handshake hangs somewhere.
const WELCOME_S = 15;
// A script sees no WebSocket ping. So a connection on which nothing was heard for so long is asked, and is dead,
// whatever the browser thinks of it, when nothing at all is heard for as long again: below 20 s together. A node whose
// ping_s is shorter than this sets the pace.
const PATIENCE_MAX_S = 9;
// Coming back makes no sense after these: the node would close again, or wanted to be left.
const FINAL = new Set([1000, 1002, 1003, 1007, 1009, 4001, 4003]);
const EXPIRED = 4001;
// The ref of all whose answer nobody waits for; others count from 1.
const WHISPER = 0;
// The answer to what was asked of a connection that is gone.
const LOST = { type: "error", code: "lost", text: "connection lost" };

export class Link {
  #hear;
  #getToken;
  #socket = null;
  // Counts the attempts: what is still under way for an earlier one comes to nothing.
  #turn = 0;
  #opening = false;
  // Consecutive losses; the exponent of the next wait.
  #tries = 0;
  // performance.now() when the last good connection was lost, or the first try failed; null: neither.
  #lostAt = null;
  // performance.now() of the last welcome; null before the first of this socket.
  #welcomed = null;
  // performance.now() before which a leaving node asked us not to come back; null: it did not.
  #notBefore = null;
  #timer = null;
  // What is expected of the present socket: a welcome, something to be heard, an answer.
  #deadline = null;
  // performance.now() of the last frame.
  #heardAt = 0;
  // True from our ping to the next frame, whatever it is.
  #asked = false;
  // The node's, from its welcome.
  #ping_s = 0;
  #ref = 0;
  // By ref, who waits for the answer.
  #answers = new Map();

  // `hear` is asked address(), and told welcome(frame), frame(frame), away(), lost(code, late_s), changed({state, code,
  // reason}). lost() returns true when the loss has an explanation that makes coming back sensible even after a final
  // code. `late_s`: for so long the node may still hear what we said.
  constructor(hear, getToken) {
    this.#hear = hear;
    this.#getToken = getToken;
  }

  get up() {
    return this.#welcomed !== null && this.#socket !== null;
  }

  // Nothing is there and nothing is planned.
  get idle() {
    return this.#socket === null && this.#timer === null && !this.#opening;
  }

  get late_s() {
    return 2 * this.#ping_s;
  }

  open() {
    this.#clear();
    const turn = ++this.#turn;
    this.#opening = true;
    this.#welcomed = this.#notBefore = null;
    this.#asked = false;
    this.#within(WELCOME_S, () => this.letGo());
    if (!this.#getToken) this.#connect([SUBPROTOCOL]);
    else this.#connectWithToken(turn);
  }

  async #connectWithToken(turn) {
    try {
      const token = await this.#getToken();
      if (turn !== this.#turn) return;
      this.#connect(token ? [SUBPROTOCOL, TOKEN_PREFIX + token] : [SUBPROTOCOL]);
    } catch (exc) {
      if (turn !== this.#turn) return;
      this.#hear.frame({ type: "error", code: "token", text: String(exc) });
      this.#lost(1006, "no token");
    }
  }

  // Throws SyntaxError for what can't be a subprotocol.
  #connect(subprotocols) {
    const socket = new WebSocket(this.#hear.address(), subprotocols);
    socket.onmessage = (event) => this.#heard(JSON.parse(event.data));
    socket.onclose = (event) => this.#lost(event.code, event.reason);
    // All that Node 20 says of a connection that was refused.
    socket.onerror = () => {
      if (this.#welcomed !== null) return;
      this.#drop();
      this.#lost(1006, "");
    };
    this.#socket = socket;
    this.#opening = false;
  }

  // The network may be another one now. Comes back at once rather than at the end of the wait, unless a leaving node
  // asked for that wait; a connection that seems to be there is asked.
  hurry() {
    if (this.#timer !== null && this.#notBefore === null) this.open();
    else if (this.up && !this.#asked) this.#ask();
  }

  // Takes the connection for lost: close() of a dead one takes its time to say so.
  letGo() {
    if (this.#socket === null && !this.#opening) return;
    this.#drop();
    // A network that comes back delivers what it holds, until the node has cut off the silent one.
    this.#lost(1006, "", this.late_s);
  }

  close() {
    this.#drop(1000);
    this.#clear();
    this.#turn++;
    this.#opening = false;
    this.#lostAt = this.#notBefore = null;
    this.#forget();
    this.#hear.changed({ state: "idle" });
  }

  // A frame that is answered: `answer` hears the frame with its ref, or LOST when none will come.
  ask(frame, answer) {
    if (!this.up) {
      answer(LOST);
      return;
    }
    const ref = ++this.#ref;
    this.#answers.set(ref, answer);
    this.#send({ ...frame, ref });
  }

  // A frame that may be lost, and whose answer is of no interest: an error of a server that does not know it, too.
  whisper(frame) {
    if (this.up) this.#send({ ...frame, ref: WHISPER });
  }

  #send(frame) {
    this.#socket.send(JSON.stringify(frame));
  }

  #heard(frame) {
    this.#heardAt = performance.now();
    this.#asked = false;
    const answer = this.#answers.get(frame.ref);
    if (answer) {
      this.#answers.delete(frame.ref);
      answer(frame);
    } else if (frame.type === "welcome") this.#welcome(frame);
    else if (frame.type === "reconnect") this.#away(frame.after_s);
    else if (frame.ref !== WHISPER) this.#hear.frame(frame);
  }

  #welcome(frame) {
    this.#welcomed = performance.now();
    this.#ping_s = frame.ping_s;
    this.#listen();
    this.#hear.changed({ state: "connected" });
    this.#hear.welcome(frame);
  }

  #away(after_s) {
    this.#notBefore = performance.now() + Math.min(after_s || 0, PAUSE_MAX_S) * 1000;
    this.#hear.away();
  }

  #lost(code, reason, late_s = 0) {
    const now = performance.now();
    this.#clear();
    this.#turn++;
    this.#socket = null;
    this.#opening = false;
    if (this.#lostAt === null || (this.#welcomed !== null && now - this.#welcomed > STEADY_S * 1000)) {
      this.#tries = 0;
      this.#lostAt = now;
    }
    const explained = this.#hear.lost(code, late_s);
    this.#forget();
    const final = FINAL.has(code) && !explained && !(code === EXPIRED && this.#getToken);
    if (!final) this.#timer = setTimeout(() => this.open(), this.#wait_ms(now));
    this.#hear.changed({ state: final ? "closed" : "reconnecting", code, reason });
  }

  #wait_ms(now) {
    const max_s = now - this.#lostAt < MINUTE_S * 1000 ? STEP_MAX_S : STEP_LATE_MAX_S;
    const step_s = Math.min(STEP_FIRST_S * 2 ** this.#tries++, max_s);
    const asked_ms = this.#notBefore === null ? 0 : Math.max(this.#notBefore - now, 0);
    return asked_ms + Math.random() * step_s * 1000;
  }

  #drop(code) {
    const socket = this.#socket;
    if (socket === null) return;
    this.#socket = socket.onmessage = socket.onclose = socket.onerror = null;
    socket.close(code);
  }

  #clear() {
    clearTimeout(this.#timer);
    clearTimeout(this.#deadline);
    this.#timer = this.#deadline = null;
  }

  #forget() {
    const answers = [...this.#answers.values()];
    this.#answers.clear();
    for (const answer of answers) answer(LOST);
  }

  #within(limit_s, act) {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(act, limit_s * 1000);
  }

  #patience_s() {
    return Math.min(this.#ping_s, PATIENCE_MAX_S);
  }

  // One timer looks now and then: setting it anew for each frame would cost more than the frame.
  #listen() {
    const left_s = this.#patience_s() - (performance.now() - this.#heardAt) / 1000;
    if (left_s > 0) this.#within(left_s, () => this.#listen());
    else this.#ask();
  }

  #ask() {
    this.#asked = true;
    // A pong says all by coming.
    this.whisper({ type: "ping" });
    this.#within(this.#patience_s(), () => {
      if (this.#asked) this.letGo();
      else this.#listen();
    });
  }
}
