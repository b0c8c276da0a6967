// The menu of the page: how it looks, what it tells, and a link to the room.

import { canNotify, mayNotify } from "./notices.js";
import { setWish, wish } from "./page.js";

const COPIED_MS = 2500;

export function prepare(texts) {
  const menu = document.querySelector("#menu");
  closeElsewhere(menu);
  prepareTheme(menu.querySelectorAll("[name=theme]"));
  prepareMoves(menu.querySelector("#show-moves"));
  prepareNotices(menu.querySelector("#notify"), texts);
  prepareLink(menu.querySelector("#copy-link"), texts);
}

// <details> stays open by itself.
function closeElsewhere(menu) {
  document.addEventListener("click", ({ target }) => menu.contains(target) || (menu.open = false));
  menu.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
}

// What it looks like is theme.js's business.
function prepareTheme(choices) {
  const show = (theme) => choices.forEach((choice) => (choice.checked = choice.value === (theme ?? "")));
  show(wish("theme"));
  for (const choice of choices) choice.addEventListener("change", () => setWish("theme", choice.value || null));
  window.addEventListener("storage", ({ key, newValue }) => key === "hiroba.theme" && show(newValue));
}

function prepareMoves(box) {
  const show = (hides) => {
    box.checked = !hides;
    document.body.dataset.moves = hides ? "hidden" : "shown";
  };
  show(wish("moves") === "off");
  box.addEventListener("change", () => setWish("moves", box.checked ? null : "off"));
  window.addEventListener("storage", ({ key, newValue }) => key === "hiroba.moves" && show(newValue === "off"));
}

function prepareNotices(box, texts) {
  box.closest("label").hidden = !canNotify();
  box.checked = mayNotify();
  box.addEventListener("change", async () => {
    // It asks only whoever wished it.
    if (box.checked && (await Notification.requestPermission()) !== "granted") {
      box.checked = false;
      box.closest("label").title = texts.notify_refused;
    }
    setWish("notify", box.checked ? "on" : null);
  });
}

function prepareLink(button, texts) {
  button.addEventListener("click", async () => {
    const copied = await copy(location.href);
    button.textContent = copied ? texts.copied : location.href;
    setTimeout(() => (button.textContent = texts.copy_link), copied ? COPIED_MS : 4 * COPIED_MS);
  });
}

// Only https and localhost have a clipboard for scripts; elsewhere there is the old way.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "unseen";
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }
}
