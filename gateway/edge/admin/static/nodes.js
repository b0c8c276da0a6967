// Which nodes there are, and how loaded. Rates are what their counters grew by since the page last asked.

import { get, post } from "./api.js";
import { ask, done } from "./ask.js";
import { make } from "./page.js";
import { ago, bar, button, heading, keyed, number, rate, row, say, section, table, texts, write } from "./parts.js";
import { Spark } from "./spark.js";

const COLUMNS = [
  ["node", ""], ["state", ""], ["connections", "wide"], ["open_rooms", "number"], ["said_per_s", "number"],
  ["told_per_s", "number"], ["up_since", ""], ["version", ""], ["", ""],
];

export function view({ node: here }) {
  const tiles = make("div", "tiles");
  const [connections, rooms, said, told] = ["connections", "open_rooms", "said_per_s", "told_per_s"].map((key) => tile(tiles, key));
  const { element, body } = table(texts.nodes, COLUMNS);
  const root = make("div");
  root.append(heading(texts.nodes), tiles, section(texts.nodes, element));
  // By node: its counters, and when they were read.
  let before = new Map();
  let all = [];

  function drain(node) {
    const last = all.filter(({ draining }) => !draining).length < 2 ? ` ${texts.drain_last}` : "";
    const text = say("drain_text", { connections: number(node.connections) }) + last;
    return ask({ title: say("drain_title", { node: node.id }), text, yes: texts.drain, isHarm: true }).then((meant) => {
      if (meant !== null) return done(() => post("/drain", { node: node.id }), say("drained", { node: node.id }));
    });
  }

  function line(first) {
    let node = first;
    const name = make("span", "mono", first.id);
    const state = make("span", "state");
    const [load, open, says, tells, since] = [bar(), make("span"), make("span"), make("span"), make("time")];
    const go = button(texts.drain, () => drain(node));
    const first_ = make("span");
    first_.append(name, ...(first.id === here ? [" ", make("small", "mark", texts.this_node)] : []));
    const version = make("span", "soft", first.version ?? "");
    return {
      element: row([first_], [state], [load.element, "wide"], [open, "number"], [says, "number"], [tells, "number"], [since], [version], [go, "acts"]),
      update(item) {
        node = item;
        state.dataset.state = item.state;
        write(state, texts[item.state]);
        const isSilent = item.state === "silent";
        load.element.hidden = isSilent;
        go.hidden = item.state !== "serving";
        if (isSilent) return;
        load.set(item.connections / item.connections_max, `${number(item.connections)} / ${number(item.connections_max)}`);
        write(open, number(item.rooms));
        write(says, rate(item.said));
        write(tells, rate(item.told));
        write(since, ago(item.started_at * 1000));
        since.dateTime = new Date(item.started_at * 1000).toISOString();
      },
    };
  }

  async function refresh() {
    const { nodes, silent } = await get("/nodes");
    const now = performance.now() / 1000;
    all = nodes.map((node) => {
      const then = before.get(node.id);
      const s = then ? now - then.now : 0;
      const grew = (key) => (s > 0 ? Math.max(0, node[key] - then[key]) / s : null);
      return { ...node, said: grew("published"), told: grew("delivered"), state: node.draining ? "draining" : "serving" };
    });
    before = new Map(nodes.map((node) => [node.id, { now, published: node.published, delivered: node.delivered }]));
    keyed(body, [...all, ...silent.map((id) => ({ id, state: "silent" }))], ({ id }) => id, line);
    const sum = (key) => all.reduce((so, node) => so + (node[key] ?? 0), 0);
    connections.set(sum("connections"), number);
    rooms.set(sum("rooms"), number);
    // The first look knows no rates.
    const isKnown = all.some((node) => node.said !== null);
    said.set(isKnown ? sum("said") : null, rate);
    told.set(isKnown ? sum("told") : null, rate);
  }

  return { element: root, title: texts.nodes, refresh };
}

function tile(parent, key) {
  const element = make("div", "tile sheet");
  const value = make("b", "", "–");
  const spark = new Spark();
  element.append(make("span", "soft", texts[key]), value, spark.element);
  parent.append(element);
  return {
    set(number_, format) {
      write(value, number_ === null ? "–" : format(number_));
      if (number_ !== null) spark.add(number_);
    },
  };
}
