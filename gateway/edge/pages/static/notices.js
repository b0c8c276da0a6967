// Notifications of the browser, for whoever wished them: what is said in an open room while nobody looks at the page.

import { address, wish } from "./page.js";

const WORDS_MAX = 200;

// Not without https, and not in phones' browsers, where only a service worker may.
export function canNotify() {
  return isSecureContext && "Notification" in window && matchMedia("(hover: hover)").matches;
}

export function mayNotify() {
  return canNotify() && Notification.permission === "granted" && wish("notify") === "on";
}

// `clicked()`: somebody wants to see it. The next one of a room takes the place of the last.
export function notify(room, { user, message, own }, clicked) {
  if (own || !document.hidden || !mayNotify()) return;
  const words = typeof message === "string" ? message : JSON.stringify(message);
  const body = user ? `${user.name}: ${words}` : words;
  const notice = new Notification(room, {
    body: body.slice(0, WORDS_MAX),
    tag: address(`chat/${encodeURIComponent(room)}/`).href,
    icon: address("static/icon.svg").href,
  });
  notice.addEventListener("click", () => {
    window.focus();
    notice.close();
    clicked();
  });
}
