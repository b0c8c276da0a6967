// Rooms as the suite's streams. Its addresses are /v1/stream/NAME, and most of what it tests it tests with text or
// bytes, where the type does not matter: each piece of those travels as a JSON string in a room, of text a character
// per byte, else in base64, and is put together again on the way back. What the node answers, status and headers, is not touched, but for
// the type, and for Location, which is made absolute (RFC 9110, section 10.2.2).

const JSON_TYPE = "application/json";
const coded = (type) => (base(type).startsWith("text/") ? "latin1" : "base64");
const base = (type) => type.split(";")[0].trim().toLowerCase();

export function roomed(fetch) {
  // By address: the type that a stream was created with.
  const types = new Map();

  return async (input, init = {}) => {
    const request = new Request(input, init);
    const url = new URL(request.url);
    if (!url.pathname.startsWith("/v1/stream/")) return fetch(input, init);
    const stream = url.pathname;
    url.pathname = stream.replace("/v1/stream/", "/streams/chat/");
    const headers = new Headers(request.headers);
    const said = headers.get("content-type");
    if (request.method === "PUT" && said !== null && !types.has(stream)) types.set(stream, said);
    const type = types.get(stream) ?? JSON_TYPE;
    let body = request.body === null ? undefined : Buffer.from(await request.arrayBuffer());
    const framed = base(type) !== JSON_TYPE;
    if (said !== null && framed && base(said) === base(type)) {
      headers.set("content-type", JSON_TYPE);
      if (body?.length) body = JSON.stringify(body.toString(coded(type)));
    } else if (said !== null && framed && base(said) === JSON_TYPE) {
      headers.set("content-type", "text/another");
    }
    headers.delete("content-length");
    const answer = await fetch(url, { method: request.method, headers, body, signal: request.signal, redirect: "manual" });
    return framed ? unframed(answer, type, stream, request) : relocated(answer, answer.body, answer.headers, stream, request);
  };
}

async function unframed(answer, type, stream, request) {
  const headers = new Headers(answer.headers);
  if (base(headers.get("content-type") ?? "") !== JSON_TYPE) return relocated(answer, answer.body, headers, stream, request);
  headers.set("content-type", type);
  const text = await answer.text();
  const bytes = text === "" ? null : Buffer.concat(JSON.parse(text).map((piece) => Buffer.from(piece, coded(type))));
  headers.delete("content-length");
  return relocated(answer, bytes, headers, stream, request);
}

function relocated(answer, body, before, stream, request) {
  const headers = new Headers(before);
  if (headers.has("location")) headers.set("location", new URL(headers.get("location"), new URL(stream, request.url)).href);
  const empty = [101, 204, 205, 304].includes(answer.status);
  return new Response(empty ? null : body, { status: answer.status, statusText: answer.statusText, headers });
}
