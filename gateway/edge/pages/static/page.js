// What both pages need: where things are, filling a sentence, and telling Enter from Enter.

// The URL of one of hiroba's paths, "chat/lobby/": scripts lie in static/ beside it, under whatever prefix that is.
export function address(path) {
  return new URL(`../${path}`, import.meta.url);
}

// "— {lost} messages —" with { lost: 3 }: plain text in, plain text out.
export function fill(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (whole, key) => (key in values ? String(values[key]) : whole));
}

// True when this keydown belongs to an input method that is still converting (かな → 漢字): such an Enter accepts
// the conversion and must not send. Safari ends the composition before the keydown; only keyCode 229 is left there.
export function confirmsConversion(event) {
  return event.isComposing || event.keyCode === 229;
}
