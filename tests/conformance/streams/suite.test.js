import { runConformanceTests } from "@durable-streams/server-conformance-tests";
import { roomed } from "./rooms.js";

globalThis.fetch = roomed(globalThis.fetch);
runConformanceTests({ baseUrl: process.env.NODE_URL, longPollTimeoutMs: 5_000 });
