// How this node is set. Settings don't change while it runs: they are read once.

import { get } from "./api.js";
import { make } from "./page.js";
import { heading, row, say, section, table, texts, write } from "./parts.js";

export function view() {
  const note = make("p", "soft");
  const changed = make("input");
  changed.type = "checkbox";
  const label = make("label", "check");
  label.append(changed, texts.only_changed);
  const search = make("input");
  search.type = "search";
  search.placeholder = texts.search;
  search.setAttribute("aria-label", texts.search);
  const sections = make("div");
  const root = make("div");
  root.append(heading(texts.settings, search), note, label, sections);
  let all = null;
  search.addEventListener("input", show);
  changed.addEventListener("change", show);

  function show() {
    const wanted = search.value.trim().toLowerCase();
    const found = all.filter((one) => one.name.includes(wanted) && !(changed.checked && one.default));
    const names = [...new Set(found.map((one) => one.section))];
    sections.replaceChildren(...names.map((name) => {
      const { element, body } = table(name, [["setting", "name"], ["value", "rest"]]);
      body.append(...found.filter((one) => one.section === name).map(line));
      return section(name, element);
    }));
  }

  async function refresh() {
    if (all !== null) return;
    const { node, settings } = await get("/settings");
    all = settings;
    write(note, say("settings_of", { node }));
    show();
  }

  return { element: root, title: texts.settings, refresh };
}

function line({ name, value, default: isDefault, text }) {
  const told = make("div");
  told.append(make("code", isDefault ? "" : "changed", value || texts.unset), make("p", "soft", text.replaceAll("`", "")));
  return row([make("code", "", name), "name"], [told, "rest"]);
}
