// Runs the Worker under workerd, for a harness outside:
//
//   node serve.mjs --config COMPILED.json [--port 0] [--artefact DIR] [--persist DIR] [--secret NAME]… [--until-stdin-closes]
//
// It prints `listening on http://127.0.0.1:PORT` on its standard error once it is ready. On its standard output stands what
// the Worker logs: a record a line.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire, enableCompileCache } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { ledger, worker } from './worker.mjs';

// A harness starts this for each configuration. An `import` of Miniflare would be scanned for its names first, which takes
// longer than all the rest of the start.
enableCompileCache();
const { convertV4MiniflareOptions, Log, LogLevel, Miniflare } = createRequire(import.meta.url)('miniflare');

const { values } = parseArgs({
  options: {
    config: { type: 'string' },
    port: { type: 'string', default: '0' },
    artefact: { type: 'string', default: process.env.TIDEGATE_WORKERD ?? join(import.meta.dirname, 'build') },
    persist: { type: 'string' },
    secret: { type: 'string', multiple: true, default: [] },
    'until-stdin-closes': { type: 'boolean', default: false },
  },
});

const artefact = resolve(values.artefact);
const state = values.persist ?? mkdtempSync(join(tmpdir(), 'tidegate-workerd-'));
const secrets = Object.fromEntries(values.secret.map((name) => [name, process.env[name] ?? '']));

const miniflare = new Miniflare({
  ...convertV4MiniflareOptions({
    name: 'tidegate',
    ...worker(artefact),
    bindings: { ...secrets, TIDEGATE_CONFIG: readFileSync(values.config, 'utf8') },
    durableObjects: ledger(),
    kvNamespaces: ['KV'],
    cf: false,
    host: '127.0.0.1',
    port: Number(values.port),
    log: new Log(LogLevel.NONE),
    handleRuntimeStdio(stdout, stderr) {
      stdout.pipe(process.stdout);
      stderr.pipe(process.stderr);
    },
  }),
  resourcePersistencePath: state,
});

let ending;
function end() {
  ending ??= miniflare.dispose().finally(() => {
    if (!values.persist) rmSync(state, { recursive: true, force: true });
    process.exit(0);
  });
}
process.on('SIGTERM', end);
process.on('SIGINT', end);
if (values['until-stdin-closes']) {
  process.stdin.resume();
  process.stdin.on('close', end);
}

const url = await miniflare.ready;
process.stderr.write(`listening on http://127.0.0.1:${url.port}\n`);
