// What build.sh has built into a folder, as Miniflare takes it.
import { join } from 'node:path';

export function worker(artefact) {
  const module = (type, path) => ({ type, path: join(artefact, path) });
  return {
    modulesRoot: artefact,
    modules: [
      module('ESModule', 'entry.mjs'),
      module('ESModule', 'build/index.js'),
      module('CompiledWasm', 'build/index_bg.wasm'),
      module('Text', 'build/tidegate.json.txt'),
    ],
    compatibilityDate: '2026-11-01',
    compatibilityFlags: ['enable_request_signal'],
  };
}

// The namespace of its accounts, perhaps of another Worker's.
export function ledger(scriptName) {
  return { LEDGER: { className: 'Account', useSQLite: true, ...(scriptName && { scriptName }) } };
}
