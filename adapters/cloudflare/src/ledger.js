export function apply(env, account, entry) {
  if (!env.LEDGER) throw new Error('the binding LEDGER is missing');
  return env.LEDGER.getByName(account).apply(entry);
}

// An account is one row, written whole: see account.rs.
export function load(storage) {
  storage.sql.exec(
    'CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY CHECK (id = 1), state BLOB NOT NULL, quota TEXT NOT NULL)',
  );
  for (const { state, quota } of storage.sql.exec('SELECT * FROM account')) {
    if (!(state instanceof ArrayBuffer) || typeof quota !== 'string') throw new Error('its row is of another form');
    return { state: new Uint8Array(state), quota };
  }
  return undefined;
}

export function save(storage, state, quota) {
  storage.sql.exec(
    'INSERT INTO account (id, state, quota) VALUES (1, ?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state, quota = excluded.quota',
    state,
    quota,
  );
}

// Not awaited: the runtime lets no answer out before it is stored.
export function wake(storage, time) {
  storage.setAlarm(time);
}

export function forget(storage) {
  return storage.deleteAll();
}
