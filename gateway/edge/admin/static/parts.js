// What the views are made of: tables whose rows stay the same while what they say changes, buttons, bars, numbers.

import { now } from "./api.js";
import { fill, make } from "./page.js";

export const texts = JSON.parse(document.body.dataset.texts);

const numbers = new Intl.NumberFormat(texts.lang);
const rates = new Intl.NumberFormat(texts.lang, { maximumFractionDigits: 1 });

export function number(value) {
  return numbers.format(value);
}

export function rate(value) {
  return value === null ? "–" : rates.format(value);
}

// A sentence of the page's, filled.
export function say(key, values = {}) {
  return fill(texts[key], values);
}

// How long ago that was: Unix ms.
export function ago(at) {
  const s = Math.max(0, Math.round((now() - at) / 1000));
  if (s < 60) return say("ago_s", { n: s });
  if (s < 3600) return say("ago_min", { n: Math.floor(s / 60) });
  if (s < 172_800) return say("ago_h", { n: Math.floor(s / 3600) });
  return new Date(at).toLocaleDateString(texts.lang);
}

export function when(at) {
  return new Date(at).toLocaleString(texts.lang, { dateStyle: "medium", timeStyle: "medium" });
}

// Written only where it is another: what somebody marks or reads stays.
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function button(text, act, className = "") {
  const element = make("button", className, text);
  element.type = "button";
  element.addEventListener("click", act);
  return element;
}

export function link(text, ...parts) {
  const element = make("a", "", text);
  element.dir = "auto";
  element.href = `#/${parts.map(encodeURIComponent).join("/")}`;
  return element;
}

export function heading(text, ...beside) {
  const head = make("div", "head");
  head.append(make("h1", "", text), ...beside);
  return head;
}

export function section(title, ...inside) {
  const sheet = make("section", "sheet");
  const head = make("h2", "", title);
  sheet.append(head, ...inside);
  sheet.setAttribute("aria-label", title);
  return sheet;
}

// `columns`: [key of the heading, class]; an empty key: a column of buttons, which needs none for the eye.
export function table(label, columns) {
  const element = make("table");
  element.setAttribute("aria-label", label);
  const row = make("tr");
  for (const [key, className] of columns) {
    const cell = make(key ? "th" : "td", className, key ? texts[key] : "");
    if (key) cell.scope = "col";
    row.append(cell);
  }
  const head = make("thead");
  head.append(row);
  const body = make("tbody");
  element.append(head, body);
  const scroller = make("div", "scroller");
  scroller.tabIndex = 0;
  scroller.setAttribute("role", "group");
  scroller.setAttribute("aria-label", label);
  scroller.append(element);
  return { element: scroller, body, head: row };
}

// A row of cells, with what stands in each: text, or an element.
export function row(...cells) {
  const element = make("tr");
  element.append(...cells.map(([inside, className = ""]) => {
    const cell = make("td", className);
    cell.append(inside);
    return cell;
  }));
  return element;
}

// So much of all: a bar behind a number.
export function bar() {
  const element = make("span", "bar");
  const text = make("span");
  element.append(text);
  return {
    element,
    set(share, told) {
      element.style.setProperty("--share", `${Math.round(Math.min(1, share) * 100)}%`);
      element.dataset.high = String(share > 0.85);
      write(text, told);
    },
  };
}

const lists = new WeakMap();

// The children of `parent`, one per item, in order. An item that stays keeps its element, and with it the focus.
// `make_`: of an item {element, update(item)}.
export function keyed(parent, items, keyOf, make_) {
  const before = lists.get(parent) ?? new Map();
  const wanted = new Map(items.map((item) => [keyOf(item), item]));
  for (const [key, { element }] of before) if (!wanted.has(key)) element.remove();
  const focused = document.activeElement;
  const known = new Map();
  let at = parent.firstElementChild;
  for (const [key, item] of wanted) {
    const one = before.get(key) ?? make_(item);
    one.update(item);
    known.set(key, one);
    if (one.element === at) at = at.nextElementSibling;
    else parent.insertBefore(one.element, at);
  }
  lists.set(parent, known);
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
}
