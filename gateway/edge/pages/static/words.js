// What somebody said, as text with links in it. Nothing in it becomes markup; only http and https become links.

import { make } from "./page.js";

// Up to white space, quotes and brackets, and what ends a sentence in Japanese, where no space follows an address.
const ADDRESS = /\bhttps?:\/\/[^\s<>"'`“”‘’「」『』（）【】。、，！？；：]+/giu;
// Belongs to the sentence, not to the address.
const AFTER = /[.,:;!?*_~)\]}…]$/u;
const PAIRS = { ")": "(", "]": "[", "}": "{" };

export function words(text) {
  const said = make("p", "words");
  said.dir = "auto";
  let done = 0;
  for (const { 0: found, index } of text.matchAll(ADDRESS)) {
    const written = trimmed(found);
    const link = linkTo(written);
    if (link === null) continue;
    said.append(text.slice(done, index), link);
    done = index + written.length;
  }
  said.append(text.slice(done));
  return said;
}

// It opens apart from us: the page there can neither reach this one nor see where its reader came from.
function linkTo(written) {
  const url = URL.parse ? URL.parse(written) : parsed(written);
  if (url === null || !["http:", "https:"].includes(url.protocol)) return null;
  const link = make("a", "", written);
  link.href = link.title = url.href;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  return link;
}

function parsed(written) {
  try {
    return new URL(written);
  } catch {
    return null;
  }
}

// "(see https://example.org/a_(b))." ends behind the inner bracket.
function trimmed(found) {
  let written = found;
  while (AFTER.test(written)) {
    const last = written.at(-1);
    const open = PAIRS[last];
    if (open && written.split(open).length >= written.split(last).length) break;
    written = written.slice(0, -1);
  }
  return written;
}
