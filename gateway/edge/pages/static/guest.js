// The name that a guest is called by: said to the server, which keeps it in a cookie that no script reads.

import { address, confirmsConversion, fill } from "./page.js";

const input = document.querySelector("#guest-name-input");
const submit = document.querySelector("#guest-name-submit");
const problem = document.querySelector("#guest-name-problem");

// `changed()`: what is connected has to connect anew.
export function prepare(texts, changed) {
  submit.addEventListener("click", () => say(texts, changed));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.repeat && !confirmsConversion(event)) submit.click();
  });
}

async function say(texts, changed) {
  const url = address("guest");
  url.searchParams.set("name", input.value);
  try {
    const answer = await fetch(url, { method: "POST" });
    input.setAttribute("aria-invalid", String(!answer.ok));
    if (answer.ok) {
      const { name } = await answer.json();
      input.value = name;
      problem.textContent = fill(texts.guest_known, { name });
      changed();
    } else problem.textContent = answer.status === 400 ? texts.guest_impossible : texts.guest_failed;
  } catch {
    problem.textContent = texts.guest_failed;
  }
}
