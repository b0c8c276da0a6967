// The tutorial's #chat-log: a textarea that is not shown, with the text of the log that is. Scripts and tests written for
// the old page read its value; what they write to it appears in the log as a line. (docs/decisions/0015)

const { get, set } = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value");

export class Mirror {
  #area;
  // The one that is shown.
  #log = null;

  constructor(area) {
    this.#area = area;
    Object.defineProperty(area, "value", { get, set: (text) => this.#written(String(text)) });
  }

  follow(log) {
    this.#log = log;
    this.renew(log);
  }

  add(log, text) {
    if (log !== this.#log || text === "") return;
    const end = get.call(this.#area).length;
    this.#area.setRangeText(text, end, end);
  }

  renew(log) {
    if (log === this.#log) set.call(this.#area, log.text);
  }

  // `value += "…\n"` of a script. Anything else than an addition takes the place of what was shown.
  #written(text) {
    if (this.#log === null) return;
    const had = get.call(this.#area);
    if (!text.startsWith(had)) this.#log.clear();
    const more = text.startsWith(had) ? text.slice(had.length) : text;
    if (more !== "") this.#log.plain(more.replace(/\n$/, ""));
  }
}
