// WebSockets through the Worker, to an upstream that says what it was asked.
//
// TIDEGATE_WORKERD names what build.sh has built.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { ledger, worker } from './worker.mjs';

const { convertV4MiniflareOptions, Log, LogLevel, Miniflare } = createRequire(import.meta.url)('miniflare');

const artefact = resolve(process.env.TIDEGATE_WORKERD ?? join(import.meta.dirname, 'build'));

const ASK =
  'GET /PATH HTTP/1.1\r\nHost: dify.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
  'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n';

let upstream;
let miniflare;
let url;
const asked = [];
const records = [];

before(async () => {
  upstream = createServer((request, response) => {
    asked.push(request);
    response.end('{"result":"success"}');
  });
  upstream.on('upgrade', echo);
  await new Promise((listening) => upstream.listen(0, '127.0.0.1', listening));
  const api = `http://127.0.0.1:${upstream.address().port}`;
  const configuration = {
    consumers: [{ name: 'web', keys: ['$WEB_KEY'] }],
    dify: { main: { api, websocket: api } },
    routes: [
      { name: 'locked', path: '/locked', serve: 'dify.main' },
      { name: 'few', path: '/few', serve: 'dify.main', access: 'public', limits: [{ requests: 1, per: '1h' }, { concurrent: 1 }] },
      { name: 'dify', path: '/', serve: 'dify.main', access: 'public' },
    ],
  };
  miniflare = new Miniflare(
    convertV4MiniflareOptions({
      name: 'tidegate',
      ...worker(artefact),
      bindings: { TIDEGATE_CONFIG: JSON.stringify(configuration), WEB_KEY: 'k' },
      durableObjects: ledger(),
      cf: false,
      host: '127.0.0.1',
      log: new Log(LogLevel.NONE),
      handleStructuredLogs({ message }) {
        if (message.startsWith('{')) records.push(JSON.parse(message));
      },
    }),
  );
  url = await miniflare.ready;
});

after(async () => {
  await miniflare?.dispose();
  upstream?.close();
});

test('what either end sends arrives at the other', async () => {
  const { code, heard, protocol } = await talk('/socket.io/?EIO=4&transport=websocket', ['one', 'x'.repeat(100)]);
  assert.deepEqual(heard, ['hello', 'one', 'x'.repeat(100)]);
  assert.equal(code, 1000);
  assert.equal(protocol, 'chat');
  const { url: target, headers } = asked.at(-1);
  assert.equal(target, '/socket.io/?EIO=4&transport=websocket');
  assert.equal(headers['x-forwarded-host'], url.host);
  const record = await recorded('/socket.io/');
  assert.deepEqual(
    [record.status, record.ended, record.served_by, record.attempts.length],
    [101, 'passed_on', 'dify.main:websocket', 1],
  );
});

test('it goes through the same stages as any other request', async () => {
  const before = asked.length;
  assert.match(await raw(ASK.replace('PATH', 'locked/socket.io/')), /^HTTP\/1.1 401 [^]*"code":"unauthorized"/);
  assert.equal(asked.length, before);
  assert.deepEqual((await talk('/few/socket.io/', [])).heard, ['hello']);
  assert.match(await raw(ASK.replace('PATH', 'few/socket.io/')), /^HTTP\/1.1 429 [^]*"code":"too_many_requests"/);
});

test('what is only half asked for or elsewhere is an ordinary request', async () => {
  for (const [path, from, to] of [
    ['v1/info', '', ''],
    ['socket.iox/', '', ''],
    ['socket.io/', 'Upgrade: websocket', 'Upgrade: h2c'],
    ['socket.io/', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'X: y'],
    ['socket.io/', 'Version: 13', 'Version: 1337'],
  ]) {
    const before = asked.length;
    const answer = await raw(ASK.replace('PATH', path).replace(from, to));
    assert.doesNotMatch(answer, /^HTTP\/1.1 101 /, `${path} ${to}`);
    for (const { headers } of asked.slice(before)) assert.equal(headers.upgrade, undefined, `${path} ${to}`);
  }
});

// What comes of a WebSocket at `path` whose caller says `words`, one after another, and then closes it.
async function talk(path, words) {
  const socket = new WebSocket(new URL(path, url), ['chat']);
  const heard = [];
  const code = await new Promise((closed, failed) => {
    socket.onmessage = ({ data }) => {
      heard.push(data);
      const word = words[heard.length - 1];
      if (word === undefined) socket.close(1000, 'enough');
      else socket.send(word);
    };
    socket.onerror = ({ message }) => failed(new Error(message));
    socket.onclose = ({ code }) => closed(code);
  });
  return { code, heard, protocol: socket.protocol };
}

// Says hello, and whatever it is told, until it is told to close.
function echo(request, socket) {
  asked.push(request);
  const accept = createHash('sha1').update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
      `Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: ${accept.digest('base64')}\r\n\r\n`,
  );
  socket.write('\x81\x05hello', 'latin1');
  let left = Buffer.alloc(0);
  socket.on('data', (data) => {
    left = Buffer.concat([left, data]);
    while (left.length >= 6 && left.length >= 6 + (left[1] & 127)) {
      const end = 6 + (left[1] & 127);
      const [first, key] = [left[0], left.subarray(2, 6)];
      const said = left.subarray(6, end).map((byte, place) => byte ^ key[place % 4]);
      left = left.subarray(end);
      socket.write(Buffer.concat([Buffer.from([first, said.length]), said]));
      if ((first & 15) === 8) socket.end();
    }
  });
  socket.on('error', () => {});
}

// What is answered to `request` before nothing more comes.
async function raw(request) {
  const socket = connect(Number(url.port), url.hostname);
  socket.setTimeout(1000, () => socket.destroy());
  socket.write(request);
  let answer = '';
  try {
    for await (const piece of socket) {
      answer += piece;
      const [head, body] = answer.split('\r\n\r\n');
      if (body?.length >= Number(/content-length: (\d+)/i.exec(head)?.[1])) break;
    }
  } catch {
    // It was destroyed.
  }
  return answer;
}

// The record of the last request for `path`, once it is written.
async function recorded(path) {
  for (let round = 0; round < 100; round++) {
    const record = records.findLast((record) => record.path === path);
    if (record) return record;
    await new Promise((wait) => setTimeout(wait, 20));
  }
  assert.fail(`nothing is on record for ${path}`);
}
