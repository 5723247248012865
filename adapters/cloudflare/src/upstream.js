import { headers } from './door.js';

export function send(head, body, signal) {
  const method = head.slice(0, head.indexOf('\n'));
  let end = head.indexOf('\n', method.length + 1);
  if (end < 0) end = head.length;
  return fetch(head.slice(method.length + 1, end), {
    method,
    headers: headers(head, end + 1),
    body,
    signal,
    redirect: 'manual',
    encodeResponseBody: 'manual',
  });
}

export function responseHead(response) {
  let head = `${response.status}`;
  for (const [name, value] of response.headers) head += `\n${name}:${value}`;
  return head;
}
