export function apply(env, account, entry) {
  if (!env.LEDGER) throw new Error('the binding LEDGER is missing');
  return env.LEDGER.getByName(account).apply(entry);
}

// An account is one row, written whole: see account.rs.
export function load(storage) {
  storage.sql.exec('CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY CHECK (id = 1), state TEXT NOT NULL)');
  for (const { state } of storage.sql.exec('SELECT state FROM account')) return state;
  return undefined;
}

export function save(storage, state) {
  storage.sql.exec(
    'INSERT INTO account (id, state) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state',
    state,
  );
}

// Not awaited: the runtime lets no answer out before it is stored.
export function wake(storage, time) {
  storage.setAlarm(time);
}

export function forget(storage) {
  return storage.deleteAll();
}
