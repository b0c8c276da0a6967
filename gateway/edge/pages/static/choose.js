// The form that asks for a room's name. What a name may be is said again by the server: core/names.py decides.

import { address, confirmsConversion, fill } from "./page.js";

const { nameCharsMax } = document.body.dataset;
const input = document.querySelector("#room-name-input");
const submit = document.querySelector("#room-name-submit");
const problem = document.querySelector("#room-name-problem");

export function prepare(texts) {
  submit.addEventListener("click", () => enter(texts));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.repeat && !confirmsConversion(event)) submit.click();
  });
  input.addEventListener("input", () => say(""));
}

// The page is loaded anew: only the server knows a name's last rules, and how it is written.
function enter(texts) {
  const name = input.value.trim().normalize("NFC");
  const wrong = complaint(name, texts);
  say(wrong);
  if (wrong) input.focus();
  else window.location.assign(address(`chat/${encodeURIComponent(name)}/`));
}

// Letters with the marks that many scripts write vowels with, numbers and _; inside, - . : @ (wide ones too, as input
// methods write them), joiners, and the few signs that belong to a script. The server knows where those may stand.
const NAME = /^[\p{L}\p{N}_]([\p{L}\p{N}\p{M}_\-.:@－．：＠\u200c\u200d·͵׳״・་۽۾]*[\p{L}\p{N}\p{M}_་۽۾׳״])?$/u;

// What is wrong with a room name, in words; "" when nothing is.
function complaint(name, texts) {
  if (name === "") return texts.name_empty;
  if (!NAME.test(name)) return fill(texts.name_impossible, { name });
  return [...name].length > Number(nameCharsMax) ? fill(texts.name_long, { name_chars_max: nameCharsMax }) : "";
}

function say(text) {
  problem.textContent = text;
  input.setAttribute("aria-invalid", String(text !== ""));
}
