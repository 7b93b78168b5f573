// Moves money between two databases all the while, in a container of the image: withdraw in one, commit, deposit
// in the other, commit. Every 25th transfer is announced in a third database first, which is not in WAL mode.
// Usage: node backup-writers.mjs DATA NAME ACKNOWLEDGEMENTS · or: DATA --check for what is in a restored directory.
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

const [data, name, acknowledgements] = process.argv.slice(2);
const START = 1_000_000;
/** Enough transfers for every cut to meet some, and the processor left to what is tested. */
const PAUSE_MS = 8;

function open(file, journalMode) {
  const database = new DatabaseSync(join(data, file), { timeout: 15_000 });
  database.exec(`PRAGMA journal_mode = ${journalMode}; PRAGMA synchronous = NORMAL`);
  database.exec(`CREATE TABLE IF NOT EXISTS balance(id INTEGER PRIMARY KEY, amount INTEGER NOT NULL);
    INSERT OR IGNORE INTO balance VALUES (1, ${START});
    CREATE TABLE IF NOT EXISTS moved(id TEXT PRIMARY KEY, amount INTEGER NOT NULL) WITHOUT ROWID`);
  return database;
}

function commit(database, id, amount) {
  database.exec('BEGIN IMMEDIATE');
  database.prepare('UPDATE balance SET amount = amount + ?').run(amount);
  database.prepare('INSERT INTO moved VALUES (?, ?)').run(id, Math.abs(amount));
  database.exec('COMMIT');
}

function write() {
  const [from, to, announced] = [
    open('from.db', 'WAL'),
    open('to.db', 'WAL'),
    open('announced.db', 'DELETE'),
  ];
  let stopped = false;
  process.on('SIGTERM', () => {
    stopped = true;
  });
  let n = 0;
  const step = () => {
    if (stopped) return;
    n += 1;
    const id = `${name}-${n}`;
    if (n % 25 === 0) commit(announced, id, 0);
    commit(from, id, -1);
    commit(to, id, 1);
    appendFileSync(acknowledgements, `${id} ${Date.now()}\n`);
    setTimeout(step, PAUSE_MS);
  };
  step();
}

/** The ids of a table, and the balance beside it. */
function read(file) {
  const database = new DatabaseSync(join(data, file), { readOnly: true });
  const ids = new Set(
    database
      .prepare('SELECT id FROM moved')
      .all()
      .map(({ id }) => id),
  );
  const { amount } = database.prepare('SELECT amount FROM balance').get();
  return { ids, amount, check: database.prepare('PRAGMA integrity_check').get().integrity_check };
}

function check() {
  const [from, to, announced] = ['from.db', 'to.db', 'announced.db'].map(read);
  const facts = new DatabaseSync(join(data, 'memory.db'), { readOnly: true });
  const keys = facts
    .prepare('SELECT key FROM memory_facts')
    .all()
    .map(({ key }) => key);
  console.log(
    JSON.stringify({
      integrity: [from, to, announced].map((one) => one.check),
      total: from.amount + to.amount,
      inFlight: [...from.ids].filter((id) => !to.ids.has(id)),
      fromNowhere: [...to.ids].filter((id) => !from.ids.has(id)),
      unannounced: [...from.ids].filter(
        (id) => Number(id.split('-')[1]) % 25 === 0 && !announced.ids.has(id),
      ),
      expectedTotal: 2 * START - [...from.ids].filter((id) => !to.ids.has(id)).length,
      ids: [...to.ids],
      keys,
    }),
  );
}

if (name === '--check') check();
else write();
