// Runs one of two Workers on workerd itself, with nothing before it, to be measured:
//
//   node serve.mjs --worker bare|tidegate --upstream http://127.0.0.1:PORT [--port 0] [--artefact DIR] [--config COMPILED.json]
//
// `bare` hands every call to the upstream; `tidegate` does the same as a public route to a Dify there, or what
// `--config` says. It prints `listening on http://127.0.0.1:PORT` on its standard error once it is ready, and ends workerd
// when it ends, whatever ends it.
import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    worker: { type: 'string' },
    upstream: { type: 'string' },
    port: { type: 'string', default: '0' },
    artefact: { type: 'string', default: join(import.meta.dirname, '../build') },
    config: { type: 'string' },
  },
});
const { default: workerd } = createRequire(import.meta.url)('workerd');

const folder = mkdtempSync(join(tmpdir(), 'tidegate-bench-'));
mkdirSync(join(folder, 'state'));
writeFileSync(join(folder, 'workerd.capnp'), { bare, tidegate }[values.worker]());

// A shell between the two ends workerd once its standard input closes, which it does even if this process is killed.
const child = spawn(
  'sh',
  ['-c', '"$@" <&- & pid=$!; cat > /dev/null; kill -9 $pid; rm -r "$0"', folder, workerd, 'serve', join(folder, 'workerd.capnp'),
    `--socket-addr=http=127.0.0.1:${values.port}`, '--control-fd=3', '--experimental'],
  { stdio: ['pipe', 'inherit', 'inherit', 'pipe'] },
);
child.stdio[3].on('data', (line) => {
  const { event, port } = JSON.parse(line);
  if (event === 'listen') process.stderr.write(`listening on http://127.0.0.1:${port}\n`);
});
child.on('exit', () => process.exit(1));
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));

function bare() {
  copyFileSync(join(import.meta.dirname, 'bare.js'), join(folder, 'bare.js'));
  return service(`
    modules = [(name = "bare.js", esModule = embed "bare.js")],
    bindings = [(name = "UPSTREAM", text = ${JSON.stringify(values.upstream)})],`);
}

function tidegate() {
  const document = values.config ? readFileSync(values.config, 'utf8') : JSON.stringify({
    dify: { main: { api: values.upstream, web: values.upstream } },
    routes: [{ name: 'dify', path: '/', serve: 'dify.main', access: 'public' }],
  });
  mkdirSync(join(folder, 'build'));
  for (const file of ['entry.mjs', 'build/index.js', 'build/index_bg.wasm']) {
    copyFileSync(join(values.artefact, file), join(folder, file));
  }
  writeFileSync(join(folder, 'build/tidegate.json.txt'), document);
  return service(`
    modules = [
      (name = "entry.mjs", esModule = embed "entry.mjs"),
      (name = "build/index.js", esModule = embed "build/index.js"),
      (name = "build/index_bg.wasm", wasm = embed "build/index_bg.wasm"),
      (name = "build/tidegate.json.txt", text = embed "build/tidegate.json.txt"),
    ],
    durableObjectNamespaces = [(className = "Account", uniqueKey = "account", enableSql = true)],
    durableObjectStorage = (localDisk = "state"),
    bindings = [(name = "LEDGER", durableObjectNamespace = "Account")],`);
}

function service(worker) {
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "worker", worker = (
      compatibilityDate = "2026-11-01",
      compatibilityFlags = ["enable_request_signal"],
      globalOutbound = "network",${worker}
    )),
    (name = "network", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true))),
    (name = "state", disk = (path = ${JSON.stringify(join(folder, 'state'))}, writable = true)),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", service = "worker")],
);
`;
}
