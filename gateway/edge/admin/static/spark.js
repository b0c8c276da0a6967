// A line of the last minutes, beside a number: where it goes, not how high it is.

const SVG = "http://www.w3.org/2000/svg";
// Of one look each.
const POINTS_MAX = 60;
const [WIDTH, HEIGHT] = [120, 32];

export class Spark {
  #values = [];
  #line = document.createElementNS(SVG, "polyline");
  element = document.createElementNS(SVG, "svg");

  constructor() {
    this.element.setAttribute("viewBox", `0 -2 ${WIDTH} ${HEIGHT + 4}`);
    this.element.setAttribute("preserveAspectRatio", "none");
    this.element.setAttribute("class", "spark");
    this.element.setAttribute("aria-hidden", "true");
    this.element.append(this.#line);
  }

  add(value) {
    this.#values.push(value);
    if (this.#values.length > POINTS_MAX) this.#values.shift();
    const top = Math.max(1, ...this.#values);
    const step = WIDTH / (POINTS_MAX - 1);
    const from = WIDTH - (this.#values.length - 1) * step;
    const points = this.#values.map((one, at) => `${(from + at * step).toFixed(1)},${(HEIGHT * (1 - one / top)).toFixed(1)}`);
    this.#line.setAttribute("points", points.join(" "));
  }
}
