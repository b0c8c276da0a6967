// The admin page: who is logged in, which view is shown, and that it is true now. No view is ever loaded anew: each is
// asked again every two seconds, while somebody looks.

import { logIn, logOut, Problem, session } from "./api.js";
import { tell } from "./ask.js";
import * as control from "./control.js";
import * as nodes from "./nodes.js";
import { say, texts, write } from "./parts.js";
import * as room from "./room.js";
import * as rooms from "./rooms.js";
import * as settings from "./settings.js";
import * as users from "./users.js";

const LOOK_MS = 2_000;
const VIEWS = {
  nodes: nodes.view,
  rooms: rooms.view,
  room: room.view,
  users: users.search,
  user: users.view,
  control: control.view,
  settings: settings.view,
};
// Where a view belongs in the list at the side.
const UNDER = { room: "rooms", user: "users" };

const part = (selector) => document.querySelector(selector);
const [login, side, desk, main, away] = ["#login", "#side", "#desk", "#view", "#away"].map(part);

// {name, scopes, key, node}; null: nobody is logged in.
let who = null;
let shown = null;
let timer = 0;
let awaySince = null;

function show() {
  const [name, ...args] = location.hash.replace(/^#\//, "").split("/").map(decoded);
  const view = VIEWS[name] ?? VIEWS.nodes;
  const under = UNDER[name] ?? (name in VIEWS ? name : "nodes");
  for (const link of side.querySelectorAll("nav a")) {
    if (link.hash === `#/${under}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  shown = view(who, ...args);
  document.title = `${shown.title} · ${texts.title} · hiroba`;
  main.replaceChildren(shown.element);
  look();
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function look() {
  clearTimeout(timer);
  if (who === null || document.hidden) return;
  const view = shown;
  let wait = LOOK_MS;
  try {
    wait = (await view.refresh()) ?? LOOK_MS;
    awaySince = null;
    write(away, "");
  } catch (problem) {
    if (problem.status === 401) {
      ended(texts.login_ended);
      return;
    }
    if (problem instanceof Problem) write(away, problem.message);
    else {
      awaySince ??= new Date();
      write(away, say("away", { when: awaySince.toLocaleTimeString(texts.lang) }));
    }
  }
  if (view !== shown) return;
  clearTimeout(timer);
  timer = setTimeout(look, wait);
}

function begun(known) {
  who = known;
  login.hidden = true;
  side.hidden = desk.hidden = false;
  part("#who").textContent = who.key ? say("you_are", { name: who.name }) : texts.no_key;
  part("#logout").hidden = !who.key;
  show();
}

function ended(why) {
  who = shown = null;
  clearTimeout(timer);
  main.replaceChildren();
  part("#ask").close("");
  side.hidden = desk.hidden = true;
  login.hidden = false;
  part("#login-problem").textContent = why;
  part("#login-key").focus();
}

part("#login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = part("#login-key");
  const press = part("#login-submit");
  press.disabled = true;
  try {
    begun(await logIn(field.value.trim()));
    part("#login-problem").textContent = "";
    main.focus();
  } catch (problem) {
    part("#login-problem").textContent = problem.message;
  }
  field.value = "";
  press.disabled = false;
});

part("#logout").addEventListener("click", async () => {
  try {
    await logOut();
    ended("");
  } catch (problem) {
    tell(problem.message, true);
  }
});

window.addEventListener("hashchange", () => {
  if (who === null) return;
  show();
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
});
document.addEventListener("visibilitychange", look);
document.addEventListener("changed", look);

session().then(begun, (problem) => ended(problem.code === "no_key" ? "" : problem.message));
