// The published TypeScript client at a room: node client.js URL DO [WORDS…]. Prints what it heard, a JSON array a line.
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client";

const [url, what, ...words] = process.argv.slice(2);
const told = (items) => console.log(JSON.stringify(items));

const does = {
  async create() {
    const handle = await DurableStream.create({ url, contentType: "application/json" });
    for (const word of words) await handle.append(JSON.stringify({ said: word }));
    told([(await DurableStream.head({ url })).contentType]);
  },
  async produce() {
    const [epoch, ...messages] = words;
    const errors = [];
    const handle = await DurableStream.connect({ url });
    const producer = new IdempotentProducer(handle, "writer", { epoch: Number(epoch), autoClaim: true, onError: (error) => errors.push(`${error}`) });
    for (const word of messages) producer.append(JSON.stringify(word));
    await producer.flush();
    await producer.close().catch(() => {}); // a room can't be closed, and a producer's close would close it
    told(errors);
  },
  async read() {
    told(await (await stream({ url, live: false })).json());
  },
  // WORDS: how many to wait for, and how.
  async follow() {
    const [count, live] = words;
    const heard = [];
    const response = await stream({ url, offset: "-1", live, sseResilience: { logWarnings: true } });
    response.subscribeJson(async (batch) => {
      heard.push(...batch.items);
      told(batch.items);
      if (heard.length >= Number(count)) process.exit(0);
    });
    await response.closed;
  },
};

await does[what]();
