// The list of people beside the room: open where there is space for it, and as somebody left it.

import { setWish, wish } from "./page.js";

const WIDE = matchMedia("(min-width: 76rem)");

export function prepare() {
  const button = document.querySelector("#people-show");
  const aside = document.querySelector("#people");
  const show = (isOpen) => {
    document.body.dataset.aside = isOpen ? "open" : "closed";
    button.setAttribute("aria-expanded", String(isOpen));
  };
  const close = () => {
    // A small screen has it in front of everything.
    if (!WIDE.matches) show(false);
  };
  show(WIDE.matches && wish("people") !== "closed");
  WIDE.addEventListener("change", () => show(WIDE.matches && wish("people") !== "closed"));
  button.addEventListener("click", () => {
    const isOpen = document.body.dataset.aside !== "open";
    show(isOpen);
    if (WIDE.matches) setWish("people", isOpen ? null : "closed");
  });
  document.addEventListener("keydown", ({ key }) => key === "Escape" && close());
  document.addEventListener("click", ({ target }) => aside.contains(target) || button.contains(target) || close());
}
