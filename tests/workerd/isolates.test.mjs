// Several isolates over the same Durable Objects, as Cloudflare runs a Worker that is busy: each has its own memory, and its own
// leases, and the limits are the same.
//
// TIDEGATE_WORKERD names what build.sh has built.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { ledger, worker } from './worker.mjs';

const { convertV4MiniflareOptions, Log, LogLevel, Miniflare } = createRequire(import.meta.url)('miniflare');

const ISOLATES = ['first', 'second', 'third'];
const artefact = resolve(process.env.TIDEGATE_WORKERD ?? join(import.meta.dirname, 'build'));

let upstream;
let miniflare;
let busy = 0;
let busiest = 0;

before(async () => {
  upstream = createServer(async (request, response) => {
    busiest = Math.max(busiest, ++busy);
    request.resume();
    if (request.url.includes('slow')) await new Promise((done) => setTimeout(done, 300));
    busy--;
    response.end('{"result":"success"}');
  });
  await new Promise((listening) => upstream.listen(0, '127.0.0.1', listening));
  const configuration = {
    dify: { main: { api: `http://127.0.0.1:${upstream.address().port}` } },
    routes: [
      route('few', [{ requests: 50, per: '1h' }]),
      route('many', [{ requests: 2000, per: '1h' }]),
      route('busy', [{ concurrent: 5 }]),
    ],
  };
  const isolate = (name) => ({
    name,
    ...worker(artefact),
    bindings: { TIDEGATE_CONFIG: JSON.stringify(configuration) },
    durableObjects: ledger(name === ISOLATES[0] ? undefined : ISOLATES[0]),
  });
  const options = convertV4MiniflareOptions({
    workers: ISOLATES.map(isolate),
    cf: false,
    log: new Log(LogLevel.NONE),
    // The records are not what is looked at here.
    handleStructuredLogs() {},
  });
  miniflare = new Miniflare(options);
  await miniflare.ready;
});

after(async () => {
  await miniflare?.dispose();
  upstream?.close();
});

test('a small limit is exact', async () => {
  assert.deepEqual(await counts('/few/v1/parameters', 400), { 200: 50, 429: 350 });
});

test('a limit that is lent to isolates is never exceeded, and used up', async () => {
  let passed = 0;
  for (let round = 0; round < 8; round++) passed += (await counts('/many/v1/parameters', 300))[200] ?? 0;
  assert.ok(passed <= 2000, `${passed} of 2000`);
  assert.ok(passed >= 1900, `${passed} of 2000`);
});

test('no more are in progress than may be', async () => {
  busiest = 0;
  const { 200: passed } = await counts('/busy/v1/slow', 60);
  assert.equal(passed, 5);
  assert.equal(busiest, 5);
});

function route(name, limits) {
  return { name, path: `/${name}`, serve: 'dify.main', access: 'public', limits };
}

// How many of `count` calls at once, spread over the isolates, got which status.
async function counts(path, count) {
  const workers = await Promise.all(ISOLATES.map((name) => miniflare.getWorker(name)));
  const call = async (number) => {
    const answer = await workers[number % workers.length].fetch(`http://tidegate.test${path}`);
    await answer.arrayBuffer();
    return answer.status;
  };
  const statuses = await Promise.all(Array.from({ length: count }, (_, number) => call(number)));
  return statuses.reduce((sum, status) => ({ ...sum, [status]: (sum[status] ?? 0) + 1 }), {});
}
