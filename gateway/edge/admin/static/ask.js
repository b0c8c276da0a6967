// The one dialog: is that meant, and how. And what is said when it is done, or why it is not.

import { make } from "./page.js";
import { texts } from "./parts.js";

const dialog = document.querySelector("#ask");
const said = document.querySelector("#said");
const SAID_MS = 8_000;
const SAID_MAX = 3;

dialog.querySelector("#ask-no").addEventListener("click", () => dialog.close(""));

// `fields`: [name, label, options] of a choice each, options [value, text]. The values by name, or null: it was not
// meant. `isHarm`: it can't be undone.
export function ask({ title, text, yes, fields = [], isHarm = false }) {
  dialog.querySelector("#ask-title").textContent = title;
  dialog.querySelector("#ask-text").textContent = text;
  const button = dialog.querySelector("#ask-yes");
  button.textContent = yes;
  button.className = isHarm ? "harm" : "";
  dialog.querySelector("#ask-fields").replaceChildren(...fields.map(field));
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const answer = () => resolve(dialog.returnValue === "yes" ? chosen() : null);
    dialog.addEventListener("close", answer, { once: true });
  });
}

function field([name, label, options]) {
  const element = make("label", "", label);
  const select = make("select");
  select.name = name;
  select.append(...options.map(([value, text]) => new Option(text, value)));
  element.append(select);
  return element;
}

function chosen() {
  return Object.fromEntries([...dialog.querySelectorAll("select")].map(({ name, value }) => [name, value]));
}

export function tell(text, isBad = false) {
  const line = make("p", isBad ? "bad" : "", text);
  said.append(line);
  while (said.childElementCount > SAID_MAX) said.firstElementChild.remove();
  setTimeout(() => line.remove(), SAID_MS);
}

// Does it, and says how it went. True: it is done.
export async function done(act, text) {
  try {
    const answer = await act();
    tell(typeof text === "function" ? text(answer) : text);
    document.dispatchEvent(new Event("changed"));
    return true;
  } catch (problem) {
    tell(problem.status === 401 ? texts.login_ended : problem.message, true);
    return false;
  }
}
