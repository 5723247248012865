// The head of a request as one text: see head.rs.
export function requestHead(request) {
  let head = `${request.method}\n${request.url}`;
  for (const [name, value] of request.headers) head += `\n${name}:${value}`;
  return head;
}

// `head` begins with a line break. What the gateway sends is sent as it is: never compressed on the way.
export function respond(status, head, body) {
  return new Response(body ?? null, { status, headers: pairs(head, 1), encodeBody: 'manual' });
}

// The lines of `head` from `start` as names and values.
export function pairs(head, start) {
  const headers = [];
  while (start < head.length) {
    let end = head.indexOf('\n', start);
    if (end < 0) end = head.length;
    const colon = head.indexOf(':', start);
    headers.push([head.slice(start, colon), head.slice(colon + 1, end)]);
    start = end + 1;
  }
  return headers;
}
