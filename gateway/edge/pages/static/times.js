// When something was said, in the reader's way of writing it.

const formats = new Map();

// The browser's own variant of the page's language, if it is one: en-GB has other clocks than en-US.
function format(lang, name, options) {
  const key = `${lang} ${name}`;
  if (!formats.has(key)) {
    const own = navigator.language ?? "";
    formats.set(key, new Intl.DateTimeFormat(own.startsWith(lang) ? own : lang, options));
  }
  return formats.get(key);
}

// All take Unix milliseconds.

export function clock(lang, at) {
  return format(lang, "clock", { hour: "numeric", minute: "2-digit" }).format(at);
}

export function date(lang, at) {
  return format(lang, "date", { month: "short", day: "numeric" }).format(at);
}

export function day(lang, at) {
  const isThisYear = new Date(at).getFullYear() === new Date().getFullYear();
  const options = { weekday: "long", month: "long", day: "numeric", year: isThisYear ? undefined : "numeric" };
  return format(lang, isThisYear ? "day" : "day of a year", options).format(at);
}

export function moment(lang, at) {
  return format(lang, "moment", { dateStyle: "full", timeStyle: "medium" }).format(at);
}

export function isSameDay(a, b) {
  return new Date(a).toDateString() === new Date(b).toDateString();
}
