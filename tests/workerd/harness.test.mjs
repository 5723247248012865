// The Worker as `wrangler deploy` would deploy it, in wrangler's own test harness: wrangler.toml is read, its build command runs,
// and the Durable Objects can be looked into.
//
// With TIDEGATE_WORKERD naming what build.sh has built, nothing is built anew.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createTestHarness } from 'wrangler';

const LIMIT = 50;
const ACCOUNT = 'route limited requests 60000';
const KEY = 'k'.repeat(32);

if (process.env.TIDEGATE_WORKERD) process.env.TIDEGATE_WORKER = join(process.env.TIDEGATE_WORKERD, 'build');
// Nothing here asks the network where it is.
process.env.CLOUDFLARE_CF_FETCH_ENABLED = 'false';

let upstream;
let harness;
let url;

before(async () => {
  // Where a user stands who types `wrangler deploy`.
  process.chdir(join(import.meta.dirname, '../..'));
  upstream = createServer((request, response) => {
    request.resume();
    request.on('end', () => response.end('{"result":"success"}'));
  });
  await new Promise((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  const api = `http://127.0.0.1:${upstream.address().port}`;
  const configuration = {
    consumers: [{ name: 'web', keys: ['$WEB_KEY'] }],
    dify: { main: { api } },
    routes: [
      { name: 'limited', path: '/limited', serve: 'dify.main', access: 'public', limits: [{ requests: LIMIT, per: '1m' }] },
      { name: 'locked', path: '/locked', serve: 'dify.main' },
      { name: 'dify', path: '/', serve: 'dify.main', access: 'public' },
    ],
  };
  harness = createTestHarness({
    workers: [
      {
        configPath: 'wrangler.toml',
        vars: { TIDEGATE_CONFIG: JSON.stringify(configuration), WEB_KEY: KEY },
      },
    ],
  });
  ({ url } = await harness.listen());
});

after(async () => {
  await harness?.close();
  upstream?.close();
});

test('it is in good health', async () => {
  const answer = await fetch(new URL('/_tidegate/health', url));
  assert.equal(answer.status, 200);
});

test('a call is handed through, and says so', async () => {
  const answer = await fetch(new URL('/v1/parameters', url));
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get('x-tidegate-route'), 'dify');
  assert.deepEqual(await answer.json(), { result: 'success' });
});

test('a secret of the environment is a key', async () => {
  const call = (key) => fetch(new URL('/locked/v1/parameters', url), { headers: { 'x-api-key': key } });
  assert.equal((await call('wrong')).status, 401);
  assert.equal((await call(KEY)).status, 200);
});

test('of 400 calls at once, exactly as many as the limit allows are let in', async () => {
  const statuses = await calls(400);
  assert.equal(statuses.filter((status) => status === 200).length, LIMIT);
  assert.equal(statuses.filter((status) => status === 429).length, 400 - LIMIT);
});

test('an account outlives its object', async () => {
  const worker = harness.getWorker();
  const storage = await worker.getDurableObjectStorage('LEDGER', { name: ACCOUNT });
  const [{ form, quota }] = await storage.exec('SELECT typeof(state) AS form, quota FROM account');
  assert.equal(form, 'blob');
  assert.deepEqual(JSON.parse(quota), { limit: LIMIT, per: 60_000 });
  await worker.evictDurableObject('LEDGER', { name: ACCOUNT });
  assert.deepEqual(await calls(3), [429, 429, 429]);
});

test('nothing has panicked', () => {
  const log = harness.getLogs().map((entry) => JSON.stringify(entry)).join('\n');
  assert.match(log, /"route/, 'the records are in the log');
  assert.doesNotMatch(log, /panic|RuntimeError|Reinitializing/i);
});

async function calls(count) {
  const call = async () => {
    const answer = await fetch(new URL('/limited/v1/parameters', url));
    await answer.arrayBuffer();
    return answer.status;
  };
  return Promise.all(Array.from({ length: count }, call));
}
