// Draws one result (schema hiroba-loadtest/1). Texts go in as textContent: a result can't bring markup along.
"use strict";

const result = JSON.parse(document.getElementById("result").textContent);
const byId = (id) => document.getElementById(id);
const COLOURS = ["#2f6fde", "#e07b00", "#c0392b", "#1a7f4b", "#7d3cb5", "#5b6875"];

const number = (value, digits = 0) =>
  value === null || value === undefined
    ? "–"
    : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const ms = (value) => (value === null || value === undefined ? "–" : `${number(value, value < 10 ? 2 : 1)} ms`);
const percent = (value) => (value === null || value === undefined ? "–" : `${number(value * 100)} %`);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function table(id, head, rows) {
  const made = byId(id);
  if (head) {
    const row = made.createTHead().insertRow();
    for (const name of head) row.append(element("th", name));
  }
  const body = made.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    for (const cell of cells) row.append(cell instanceof Node ? cell : element("td", cell));
  }
}

function verdict() {
  const { counts, rates, latency_ms: latency } = result;
  document.title = `Load test: ${result.verdict}`;
  byId("verdict").className = result.verdict;
  byId("badge").textContent = result.verdict;
  byId("headline").textContent = result.reasons.length
    ? result.reasons.join("; ")
    : `All ${number(counts.expected)} deliveries arrived once and in order`;
  byId("summary").textContent =
    `${number(rates.users_peak)} users in ${number(result.run.rooms)} rooms sent ${number(counts.sent)} messages;` +
    ` ${number(counts.delivered)} of ${number(counts.expected)} deliveries arrived,` +
    ` 99 % of them within ${ms(latency.p99)}.`;
  byId("model").textContent = `Model: ${result.model}.`;
  for (const note of result.notes) byId("notes").append(element("li", note));
}

function tiles() {
  const { counts, rates, latency_ms: latency, generator } = result;
  const entries = [
    ["users at the most", number(rates.users_peak)],
    ["messages sent per second", number(rates.sent_per_s)],
    ["deliveries per second", number(rates.delivered_per_s)],
    ["latency, median", ms(latency.p50)],
    ["latency, 99 %", ms(latency.p99)],
    ["lost", number(counts.lost), counts.lost > 0],
    ["the generator's own CPU", percent(generator.cpu_share), generator.cpu_share > 0.9],
  ];
  for (const [name, value, bad] of entries) {
    const tile = element("div", undefined, "tile");
    tile.append(element("b", value, bad ? "bad" : ""), element("span", name));
    byId("tiles").append(tile);
  }
}

const MEANING = {
  expected: "deliveries that were owed: each message to each member that was in the room",
  delivered: "of those arrived, each counted once",
  lost: "never arrived",
  doubled: "arrived again",
  reordered: "arrived out of the room's order",
  foreign: "came from another room, or from nobody in this run",
  gaps: "missing, but the server told the member so",
  replayed: "arrived late on purpose: fetched after a reconnect (v1 resume)",
  unconfirmed: "messages under way on a connection that broke; nobody can know",
  unsent: "messages that found no connection when they were due",
};
const MUST_BE_ZERO = ["lost", "doubled", "reordered", "foreign", "unsent"];

function counts() {
  table(
    "counts",
    null,
    Object.entries(MEANING).map(([name, meaning]) => [
      name,
      element("td", number(result.counts[name]), MUST_BE_ZERO.includes(name) && result.counts[name] ? "bad" : ""),
      element("td", meaning, "text quiet"),
    ]),
  );
}

function returns() {
  // Results of before 2026-11 have none.
  if (!result.returns?.length) return;
  byId("back").hidden = false;
  const heads = ["close code", "came back", "were asked to", "away 50 %", "away max", "overdue 50 %", "overdue max"];
  table("returns", heads, result.returns.map(({ code, returned, asked, away_ms: away, overdue_ms: overdue }) => [
    String(code), number(returned), number(asked), ms(away.p50), ms(away.max), ms(overdue.p50), ms(overdue.max),
  ]));
}

const charts = [];

function chart(id, series, xs, columns, options = {}) {
  const host = byId(id);
  const size = () => ({ width: Math.max(280, host.clientWidth), height: 240 });
  const made = new uPlot(
    {
      ...size(),
      scales: { x: { time: false }, ...options.scales },
      axes: [options.x || { label: "seconds" }, ...(options.y || [{ size: 70 }])],
      series: [
        { label: options.xLabel || "second", value: options.xValue },
        ...series.map(([label, scale], n) => ({
          label, scale, stroke: COLOURS[n % COLOURS.length], width: 2, spanGaps: false,
          points: { show: xs.length < 40, size: 5 },
          value: (_, value) => (value === null || value === undefined ? "–" : number(value, value < 10 ? 2 : 0)),
        })),
      ],
    },
    [xs, ...columns],
    host,
  );
  charts.push([made, size]);
}

function timeline() {
  const rows = result.timeline;
  const xs = rows.map((row) => row.second);
  const column = (name) => rows.map((row) => row[name]);
  chart("load", [["users", "users"], ["sent/s", "rate"], ["delivered/s", "rate"]], xs,
    [column("users"), column("sent_per_s"), column("delivered_per_s")],
    {
      scales: { users: { range: (_, low, high) => [0, Math.max(high, 1) * 1.05] },
        rate: { range: (_, low, high) => [0, Math.max(high, 1) * 1.05] } },
      y: [{ scale: "users", label: "users", size: 60 },
        { scale: "rate", side: 1, label: "per second", size: 80, grid: { show: false } }],
    });
  chart("latency", [["p50", "ms"], ["p95", "ms"], ["p99", "ms"], ["max", "ms"]], xs,
    ["p50_ms", "p95_ms", "p99_ms", "max_ms"].map(column),
    { scales: { ms: { distr: 3 } }, y: [{ scale: "ms", label: "ms", size: 70 }] });
  chart("generator", [["CPU", "share"], ["lag p99 (ms)", "ms"]], xs, [column("cpu_share"), column("lag_ms")],
    {
      scales: { share: { range: [0, 1.05] }, ms: { range: (_, low, high) => [0, Math.max(high, 1) * 1.1] } },
      y: [{ scale: "share", label: "share of a core", size: 60 },
        { scale: "ms", side: 1, label: "ms", size: 60, grid: { show: false } }],
    });
}

// A percentile's place: 0 at the median's left, one step to the right for each nine.
const rarity = (percentile) => -Math.log10(1 - Math.min(percentile, 99.9999) / 100);

function spectrum() {
  const { latency, service } = result.spectrum;
  const xs = [...new Set([...latency, ...service].map(([at]) => rarity(at)))].sort((a, b) => a - b);
  const column = (steps) => {
    const value = new Map(steps.map(([at, time]) => [rarity(at), time]));
    return xs.map((x) => (value.has(x) ? value.get(x) : null));
  };
  const names = { 0: "0 %", 1: "90 %", 2: "99 %", 3: "99.9 %", 4: "99.99 %", 5: "99.999 %", 6: "100 %" };
  if (xs.length) {
    chart("spectrum", [["latency", "ms"], ["service time", "ms"]], xs, [column(latency), column(service)],
      {
        xLabel: "percentile", xValue: (_, x) => (x === null ? "–" : `${number(100 * (1 - 10 ** -x), 3)} %`),
        x: { label: "percentile", values: (_, ticks) => ticks.map((x) => names[x] ?? ""), incrs: [1] },
        scales: { ms: { distr: 3 } }, y: [{ scale: "ms", label: "ms", size: 70 }],
      });
  }
  const steps = ["p50", "p90", "p95", "p99", "p999", "p9999", "max"];
  const row = (name, times) => [name, ...steps.map((step) => ms(times[step]))];
  table("percentiles", ["", "50 %", "90 %", "95 %", "99 %", "99.9 %", "99.99 %", "max"],
    [row("latency", result.latency_ms), row("service time", result.service_ms),
      row("handshake", result.connect_ms)]);
}

function scenarios() {
  const steps = ["p50", "p90", "p99", "p999", "max"];
  table("scenarios", ["user class", "users", "timed deliveries", "50 %", "90 %", "99 %", "99.9 %", "max"],
    result.scenarios.map((row) => [
      row.name + (row.slow_on_purpose ? " (reads slowly on purpose: not in the totals)" : ""),
      number(row.users), number(row.deliveries_timed), ...steps.map((step) => ms(row.latency_ms[step])),
    ]));
}

const FIGURES = {
  cpu_per_delivery_us: ["node CPU per delivery", (v) => `${number(v, 2)} µs`],
  cpu_s: ["node CPU", (v) => `${number(v, 1)} s`],
  memory_per_connection_bytes: ["memory per connection (upper bound)", (v) => `${number(v / 1024, 1)} KiB`],
  batch_entries_mean: ["entries per delivered batch", (v) => number(v, 1)],
  connections_max: ["connections at the most", (v) => number(v)],
  behind_max: ["sessions behind at the most", (v) => number(v)],
  broker_cpu_s: ["broker CPU", (v) => `${number(v, 1)} s`],
  broker_cpu_per_delivery_us: ["broker CPU per delivery", (v) => `${number(v, 2)} µs`],
};

function server() {
  if (!result.server) return;
  byId("server").hidden = false;
  const { figures, closes, refused, targets } = result.server;
  const rows = Object.entries(FIGURES).filter(([name]) => name in figures)
    .map(([name, [label, show]]) => [label, show(figures[name])]);
  for (const [reason, times] of Object.entries(closes)) rows.push([`closed: ${reason}`, number(times)]);
  for (const [reason, times] of Object.entries(refused)) rows.push([`refused: ${reason}`, number(times)]);
  table("figures", null, rows);
  const drawn = targets.filter((target) => target.series.cpu_share.some((share) => share !== null));
  if (!drawn.length) return;
  const xs = drawn[0].series.at_s;
  chart("server-cpu", drawn.map((target) => [target.url, "share"]), xs,
    drawn.map((target) => xs.map((_, n) => target.series.cpu_share[n] ?? null)),
    { scales: { share: { range: (_, low, high) => [0, Math.max(high, 1) * 1.05] } },
      y: [{ scale: "share", label: "share of a core", size: 60 }] });
}

function ends() {
  const { generator, run, environment } = result;
  table("own", ["", "50 %", "99 %", "max"], [
    ["event-loop lag", ms(generator.lag_ms.p50), ms(generator.lag_ms.p99), ms(generator.lag_ms.max)],
    ["schedule slip", ms(generator.slip_ms.p50), ms(generator.slip_ms.p99), ms(generator.slip_ms.max)],
  ]);
  byId("command").textContent = `${run.command}\n# the same plan again: --seed ${run.seed}`;
  const libraries = Object.entries(environment.libraries).map((pair) => pair.join(" ")).join(", ");
  table("environment", null, [
    ["begun", run.began], ["run", run.run], ["servers", run.urls.join(", ")], ["wire", run.wire],
    ["generator's machine", `${environment.system}, ${environment.cores} cores`],
    ["generator's software", `Python ${environment.python}, ${libraries}`],
  ].map(([name, text]) => [name, element("td", text, "text")]));
}

verdict();
tiles();
counts();
returns();
timeline();
spectrum();
scenarios();
server();
ends();
addEventListener("resize", () => charts.forEach(([made, size]) => made.setSize(size())));
document.documentElement.dataset.drawn = String(charts.length);
