// Entry ids "<ms>-<n>": their order, and the room's dense count in them.

export const START = "0-0";

// The entry's number in its room: 1, 2, 3 … So unread = count(newest) - count(read).
export function count(id) {
  return Number(id.split("-")[1]);
}

// Negative, zero, positive: as for sort(). No id is the start.
export function compare(a, b) {
  a ??= START;
  b ??= START;
  return parseInt(a, 10) - parseInt(b, 10) || count(a) - count(b);
}
