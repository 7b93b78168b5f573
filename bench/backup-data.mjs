// Runs inside the base image. Makes data like a memory server's, half in databases and half in files, from words
// that compress as prose does; or commits 500 times a second and tells the longest wait.
// Usage: node backup-data.mjs make DIRECTORY MEGABYTES · node backup-data.mjs write DIRECTORY SECONDS
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

const [mode, directory, amount] = process.argv.slice(2);
let state = 2463534242;
function random() {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  state >>>= 0;
  return state;
}
const words = Array.from({ length: 4000 }, (_, n) =>
  createHash('md5')
    .update(String(n))
    .digest('hex')
    .slice(0, 3 + (n % 8)),
);
function prose(length) {
  let text = '';
  while (text.length < length) text += `${words[random() % 4000]} `;
  return text;
}

function make(megabytes) {
  for (const [name, share] of [
    ['memory.db', 0.25],
    ['episodic.db', 0.25],
  ]) {
    const database = new DatabaseSync(join(directory, name));
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; BEGIN');
    database.exec('CREATE TABLE facts(id INTEGER PRIMARY KEY, key TEXT UNIQUE, value TEXT)');
    const insert = database.prepare('INSERT INTO facts(key, value) VALUES (?, ?)');
    const rows = Math.floor((megabytes * share * 1e6) / 900);
    for (let row = 0; row < rows; row += 1) insert.run(`key-${row}`, prose(800));
    database.exec('COMMIT');
    database.close();
  }
  mkdirSync(join(directory, 'files'));
  const files = Math.max(1, Math.floor((megabytes * 0.5) / 4));
  for (let n = 0; n < files; n += 1)
    writeFileSync(join(directory, 'files', `${n}.txt`), prose((megabytes * 0.5e6) / files));
}

async function write(seconds) {
  const database = new DatabaseSync(join(directory, 'memory.db'), { timeout: 10_000 });
  database.exec('PRAGMA synchronous = NORMAL; CREATE TABLE IF NOT EXISTS ticks(a)');
  const insert = database.prepare('INSERT INTO ticks VALUES (?)');
  const began = performance.now();
  const waits = [];
  for (let n = 0; performance.now() - began < seconds * 1000; n += 1) {
    const due = began + n * 2;
    const ahead = due - performance.now();
    if (ahead > 0) await new Promise((resolve) => setTimeout(resolve, ahead));
    const start = performance.now();
    insert.run(n);
    waits.push(performance.now() - start);
  }
  waits.sort((a, b) => a - b);
  const perSecond = waits.length / seconds;
  console.log(
    JSON.stringify({ perSecond, longest: waits.at(-1), p99: waits[Math.floor(waits.length * 0.99)] }),
  );
}

if (mode === 'make') make(Number(amount));
else await write(Number(amount));
