// What all of the page needs: where things are, filling a sentence, making elements, telling Enter from Enter.

// The URL of one of hiroba's paths, "chat/lobby/": scripts lie in static/ beside it, under whatever prefix that is.
export function address(path) {
  return new URL(`../${path}`, import.meta.url);
}

// "— {lost} messages —" with { lost: 3 }: plain text in, plain text out.
export function fill(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (whole, key) => (key in values ? String(values[key]) : whole));
}

// Text is text, whatever it holds: nothing here ever becomes markup.
export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

// True when this keydown belongs to an input method that is still converting (かな → 漢字): such an Enter accepts
// the conversion and must not send. Safari ends the composition before the keydown; only keyCode 229 is left there.
export function confirmsConversion(event) {
  return event.isComposing || event.keyCode === 229;
}

// What somebody wished of the page in this browser: "on", a theme's name; null: nothing. The same in all its tabs.
export function wish(name) {
  try {
    return localStorage.getItem(`hiroba.${name}`);
  } catch {
    // Storage is blocked: wishes live as long as the page.
    return null;
  }
}

// Told to this tab as the browser tells the others.
export function setWish(name, value) {
  const key = `hiroba.${name}`;
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // As above.
  }
  window.dispatchEvent(new StorageEvent("storage", { key, newValue: value }));
}
