// The head of a request as one text: see head.rs.
export function requestHead(request) {
  let head = `${request.method}\n${request.url}`;
  for (const [name, value] of request.headers) head += `\n${name}:${value}`;
  return head;
}

// `head` begins with a line break. What the gateway sends is sent as it is: never compressed on the way.
export function respond(status, head, body) {
  return new Response(body ?? null, { status, headers: headers(head, 1), encodeBody: 'manual' });
}

// `answer` is an upstream's that has switched.
export function switched({ webSocket }, head) {
  return new Response(null, { status: 101, headers: headers(head, 1), webSocket });
}

// The headers in the lines of `head` from `start`. A plain object is what the runtime takes up fastest; only a name that
// stands there twice, a `set-cookie`, needs more.
export function headers(head, start) {
  const named = { __proto__: null };
  const repeated = [];
  while (start < head.length) {
    let end = head.indexOf('\n', start);
    if (end < 0) end = head.length;
    const colon = head.indexOf(':', start);
    const name = head.slice(start, colon);
    const value = head.slice(colon + 1, end);
    if (name in named) {
      repeated.push([name, value]);
    } else {
      named[name] = value;
    }
    start = end + 1;
  }
  if (repeated.length === 0) return named;
  const all = new Headers(named);
  for (const [name, value] of repeated) all.append(name, value);
  return all;
}
