// What one room's outbox holds, kept over a reload so that exactly one tab has it.
//
// IndexedDB holds each item under the one who took it, its owner: a random name. A Web Lock by that name says that the
// owner lives; the browser gives it up when the tab ends, however it ends. Whoever has the room open waits for the locks
// of the others, and who gets one goes on with the items where they lie, and is the one who has them from then on.
//
// Not localStorage: the last write of a tab that has ended may be seen by another process later than that it ended.

const DATABASE = "hiroba";
const ITEMS = "outbox";
// Storage may be so broken that it neither opens nor fails; and nothing is sent before one of the two.
const ANSWER_MS = 5000;
// One for all rooms: a promise of it, once somebody asked.
let database;

// Both want a secure context: https, or localhost.
export function canKeep() {
  return globalThis.indexedDB && globalThis.navigator?.locks;
}

export class Keep {
  #place;
  #owner = crypto.randomUUID();
  #database = null;
  #channel = null;
  #adopted;
  #started;
  // The owners whose locks we wait for, or have.
  #sought = new Set();
  #end = new AbortController();
  // False until it is known whether anything can be kept here.
  ready = false;

  // `scope` says whose messages these are: one of another user must never go out as ours.
  constructor(scope, room) {
    this.#place = [scope, room];
  }

  // `ready()` is told once; `adopted(records)` whenever an owner is gone and we have its items.
  start(ready, adopted) {
    this.#adopted = adopted;
    this.#started = this.#start(ready);
  }

  async #start(ready) {
    let records = [];
    try {
      this.#database = await (database ??= opened());
      await new Promise((granted, refused) => this.#hold(this.#owner, granted).catch(refused));
      this.#channel = new BroadcastChannel(this.#name("*"));
      this.#channel.onmessage = ({ data }) => this.#seek(data);
      records = await this.#read();
    } catch {
      // Storage is blocked, or full, or silent, or the page is going away: messages live as long as the page.
      this.#database = null;
    }
    this.ready = true;
    ready();
    for (const { key } of records) this.#seek(key[2]);
  }

  // Resolves when it is written, or can't be.
  async put(item) {
    item.kept = false;
    if (this.#database === null) return;
    item.key ??= [...this.#place, this.#owner, item.ref];
    const { key, json, at, state, reason, after, sessions } = item;
    try {
      await done(this.#items("readwrite").put({ key, json, at, state, reason, after, sessions }));
      item.kept = true;
    } catch {
      // What is written there now is not true any more.
      await this.remove(item);
    }
    // An owner with items is worth waiting for.
    this.#channel?.postMessage(item.key[2]);
  }

  async remove(item) {
    try {
      if (item.key) await done(this.#items("readwrite").delete(item.key));
    } catch {
      // It is gone, with all that was kept.
    }
  }

  // Once it is known whether anything can be kept: what was said before is kept too.
  async close() {
    await this.#started;
    this.#end.abort();
    this.#channel?.close();
    this.#channel = this.#database = null;
  }

  #seek(owner) {
    if (owner === this.#owner || this.#sought.has(owner)) return;
    this.#sought.add(owner);
    this.#hold(owner, () => this.#adopt(owner)).catch(() => {});
  }

  async #adopt(owner) {
    const records = await this.#read(owner);
    if (records.length === 0 || this.#end.signal.aborted) return false;
    this.#adopted(records);
    return true;
  }

  // Waits for an owner's lock, and has it until close() or, where `granted` comes to false, no longer.
  #hold(owner, granted) {
    const signal = this.#end.signal;
    const held = new Promise((end) => signal.addEventListener("abort", end));
    return navigator.locks.request(this.#name(owner), { signal }, async () => {
      if ((await granted()) !== false) await held;
    });
  }

  #name(owner) {
    return JSON.stringify([DATABASE, ...this.#place, owner]);
  }

  // The items of one owner, or of all. An array is above every text: the range is all keys that begin with these words.
  #read(...owner) {
    const first = [...this.#place, ...owner];
    return done(this.#items("readonly").getAll(IDBKeyRange.bound(first, [...first, []])));
  }

  #items(mode) {
    return this.#database.transaction(ITEMS, mode).objectStore(ITEMS);
  }
}

function opened() {
  const asked = indexedDB.open(DATABASE, 1);
  asked.onupgradeneeded = () => asked.result.createObjectStore(ITEMS, { keyPath: "key" });
  return new Promise((opened, failed) => {
    asked.onsuccess = () => opened(asked.result);
    asked.onerror = () => failed(asked.error);
    setTimeout(failed, ANSWER_MS);
  });
}

// What the request gave, once its transaction is through.
function done(asked) {
  const { transaction } = asked;
  return new Promise((done, failed) => {
    transaction.oncomplete = () => done(asked.result);
    transaction.onabort = () => failed(transaction.error);
  });
}
