// What goes into an archive and comes back out of it: everything, as it was, of one moment; and what a backup must
// not do to the data meanwhile.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import {
  create,
  createOptions,
  dataDirectory,
  names,
  PROJECT,
  program,
  rowsOf,
  startProgram,
  unpack,
} from './backup-support.ts';

/** Runs until the end of the test. */
function startScript(t: TestContext, script: string, argument: string): void {
  const child = spawn(process.execPath, ['-e', script, argument], { stdio: 'ignore' });
  t.after(() => void child.kill('SIGKILL'));
}

const sha256 = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex');

test('everything comes back: content, modes, times, links, empty files and directories, odd names', async (t) => {
  const places = dataDirectory(t);
  const made = await create(places);
  assert.match(made.archive, /^synapse-\d{8}T\d{6}Z-v1\.0\.0\.tar\.zst$/);
  assert.equal(statSync(join(places.backups, made.archive)).mode & 0o777, 0o600);
  assert.equal(made.databases, 4);
  assert.ok(made.proof.at, 'it is proven');
  const restored = await unpack(places, made.archive);
  const list = (root: string) =>
    readdirSync(root, { recursive: true, encoding: 'utf8' })
      .filter((name) => !/-(wal|shm)$/.test(name))
      .sort();
  assert.deepEqual(list(restored), list(places.data));
  for (const name of list(places.data)) {
    const [was, is] = [lstatSync(join(places.data, name)), lstatSync(join(restored, name))];
    const of = (stats: typeof was) => [stats.mode, stats.uid, stats.gid];
    assert.deepEqual(of(is), of(was), name);
    if (!was.isDirectory() && !was.isSymbolicLink()) assert.equal(is.mtimeMs, was.mtimeMs, name);
    if (was.isFile() && !/\.(db|sqlite)$/.test(name))
      assert.equal(sha256(join(restored, name)), sha256(join(places.data, name)), name);
  }
  assert.equal(readlinkSync(join(restored, 'deep/link')), '../memory.db');
  for (const name of ['memory.db', 'deep/index.sqlite', 'old.db'])
    assert.equal(rowsOf(join(restored, name)), 50);
  assert.equal(statSync(join(restored, 'nothing.db')).size, 0);
});

test('names that are not UTF-8 come back byte for byte, the targets of links too', async (t) => {
  const places = dataDirectory(t);
  const [file, link] = ['caf\xe9', 'to-\xff'].map((name) => Buffer.from(name, 'latin1'));
  const below = (root: string, name: Buffer) => Buffer.concat([Buffer.from(`${root}/`), name]);
  writeFileSync(below(places.data, file!), 'coffee');
  symlinkSync(file!, below(places.data, link!));
  const restored = await unpack(places, (await create(places)).archive);
  assert.equal(readFileSync(below(restored, file!), 'utf8'), 'coffee');
  assert.deepEqual(readlinkSync(below(restored, link!), { encoding: 'buffer' }), file);
});

test('rows that are only in the write-ahead log are in the archive, and the log is left alone', async (t) => {
  const places = dataDirectory(t);
  const file = join(places.data, 'memory.db');
  // What a killed writer leaves: a log with rows, and nobody who has the database open.
  const writer = new DatabaseSync(file);
  writer.exec('PRAGMA wal_autocheckpoint = 0; INSERT INTO t(value) VALUES (1), (2), (3)');
  for (const end of ['', '-wal']) writeFileSync(join(places.root, `crash${end}`), readFileSync(file + end));
  writer.close();
  for (const end of ['', '-wal']) writeFileSync(file + end, readFileSync(join(places.root, `crash${end}`)));
  const before = [sha256(file), sha256(`${file}-wal`)];
  const made = await create(places);
  assert.deepEqual([sha256(file), sha256(`${file}-wal`)], before, 'a backup never checkpoints');
  const restored = await unpack(places, made.archive);
  assert.equal(rowsOf(join(restored, 'memory.db')), 53);
  assert.ok(!existsSync(join(restored, 'memory.db-wal')), 'the copy needs no other file');
  assert.equal(readFileSync(join(restored, 'memory.db')).readUInt8(18), 1, 'and is not in WAL mode');
});

test('an open transaction of a writer is not in the archive, and holds up nothing but the cut', async (t) => {
  const places = dataDirectory(t);
  const writer = new DatabaseSync(join(places.data, 'memory.db'));
  writer.exec("BEGIN IMMEDIATE; INSERT INTO t(value) VALUES ('not committed')");
  const running = startProgram('create', createOptions(places));
  await new Promise((resolve) => setTimeout(resolve, 700));
  writer.exec('ROLLBACK');
  const { result, error } = await running.ended;
  writer.close();
  assert.ok(result, JSON.stringify(error));
  assert.ok(result.cut.heldMs < 600, 'nobody else waited for the open transaction to end');
  assert.equal(rowsOf(join(await unpack(places, result.archive), 'memory.db')), 50);
});

interface LeftOut {
  name: string;
  /** May return what is to be done after the backup. */
  prepare?: (data: string) => unknown;
  rows?: number;
  options?: object;
  skipped?: string[];
  missing?: [path: string, reason: RegExp][];
}

const LEFT_OUT: LeftOut[] = [
  {
    name: 'a database that stays locked',
    prepare: (data) => {
      const writer = new DatabaseSync(join(data, 'memory.db'));
      writer.exec('BEGIN EXCLUSIVE');
      return () => writer.close();
    },
    options: { lockTimeoutMs: 300 },
    missing: [['data/memory.db', /locked by another program for more than 0\.3 s/]],
  },
  {
    name: 'a database that would block its writers for too long',
    rows: 8000,
    options: { maxBlockMs: 0 },
    missing: [['data/old.db', /it would block its writers for more than 0 s/]],
  },
  {
    name: 'a damaged database',
    rows: 5000,
    prepare: (data) => {
      const bytes = readFileSync(join(data, 'memory.db'));
      writeFileSync(join(data, 'memory.db'), bytes.fill(0xff, 8 * 4096, 8 * 4096 + 900));
    },
    missing: [['data/memory.db', /damaged|malformed/]],
  },
  {
    name: 'links that lead out, and second names of a database',
    prepare: (data) => {
      symlinkSync('/etc/passwd', join(data, 'absolute'));
      symlinkSync('../../outside', join(data, 'deep/out'));
      linkSync(join(data, 'memory.db'), join(data, 'second.db'));
    },
    skipped: ['data/absolute', 'data/deep/out', 'data/second.db'],
  },
];

for (const { name, prepare, rows = 50, options, skipped = [], missing = [] } of LEFT_OUT)
  test(`named, not left out in silence: ${name}; all else is in the archive`, async (t) => {
    const places = dataDirectory(t, rows);
    const end = prepare?.(places.data);
    const made = await create(places, options);
    if (typeof end === 'function') end();
    const paths = (list: { path: string }[]) => list.map(({ path }) => path).sort();
    assert.deepEqual(paths(made.skipped), skipped);
    assert.deepEqual(
      paths(made.missing),
      missing.map(([path]) => path),
    );
    for (const [index, [, reason]] of missing.entries()) assert.match(made.missing[index].reason, reason);
    assert.ok(made.proof, 'what it holds was verified');
    const restored = await unpack(places, made.archive);
    assert.equal(rowsOf(join(restored, 'deep/index.sqlite')), rows);
    for (const path of skipped) assert.ok(!existsSync(join(restored, path.slice('data/'.length))), path);
    // For whoever can repair it, or a copy of the file as it was.
    for (const [path] of missing)
      assert.ok(statSync(join(restored, path.slice('data/'.length))).size > 0, path);
  });

/** All of one value, or what lies on the disk while the writer pauses in the middle: the next value first. */
function isState(content: Buffer): boolean {
  const [first, second] = [content.subarray(0, content.length / 2), content.subarray(content.length / 2)];
  const isOne = (half: Buffer) => half.every((byte) => byte === half[0]);
  const value = second[0]!;
  return isOne(first) && isOne(second) && [value, (value % 250) + 1].includes(first[0]!);
}

test('a file that is rewritten all the time is never half of one state and half of the next', async (t) => {
  const places = dataDirectory(t);
  const sizes = { small: 300_000, big: 6 * 1024 * 1024 };
  for (const [name, size] of Object.entries(sizes))
    writeFileSync(join(places.data, name), Buffer.alloc(size, 1));
  // Rewritten in place in two halves with a pause between: a plain copy would get mixed ones.
  const script = `
    const fs = require('node:fs'); const values = {};
    const write = (file, size) => { const value = values[file] = ((values[file] ?? 1) % 250) + 1;
      const handle = fs.openSync(file, 'r+');
      for (let part = 0; part < 2; part += 1) { fs.writeSync(handle, Buffer.alloc(size / 2, value), 0, size / 2, part * size / 2); if (part === 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1); }
      fs.closeSync(handle); };
    setInterval(() => write(process.argv[1] + '/small', ${sizes.small}), 40);
    setInterval(() => write(process.argv[1] + '/big', ${sizes.big}), 600);`;
  startScript(t, script, places.data);
  for (let round = 0; round < 2; round += 1) {
    const made = await create(places);
    const restored = await unpack(places, made.archive, `restored-${round}`);
    const missing = made.missing.map(({ path }: { path: string }) => path);
    for (const [name, size] of Object.entries(sizes)) {
      // On a slow machine it may never hold still: then it says so.
      assert.equal(existsSync(join(restored, name)), !missing.includes(`data/${name}`));
      if (missing.includes(`data/${name}`)) continue;
      const content = readFileSync(join(restored, name));
      assert.equal(content.length, size);
      assert.ok(isState(content), `${name} of round ${round} is torn`);
    }
  }
});

test('a database that is not in WAL mode is one moment, however busy its writer is', async (t) => {
  const places = dataDirectory(t);
  const file = join(places.data, 'old.db');
  const database = new DatabaseSync(file);
  database.exec('CREATE TABLE same(value INTEGER, filling TEXT); PRAGMA synchronous = OFF');
  database.exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000)
    INSERT INTO same SELECT 0, hex(zeroblob(2000)) FROM n`);
  database.close();
  const script = `
    const { DatabaseSync } = require('node:sqlite'); const d = new DatabaseSync(process.argv[1], { timeout: 20000 });
    d.exec('PRAGMA synchronous = OFF; PRAGMA cache_size = 10');
    for (let n = 1; ; n += 1) d.exec('UPDATE same SET value = ' + n);`;
  startScript(t, script, file);
  for (let round = 0; round < 2; round += 1) {
    const { archive, missing } = await create(places, { lockTimeoutMs: 30_000, maxBlockMs: 30_000 });
    assert.deepEqual(missing, []);
    const copy = new DatabaseSync(join(await unpack(places, archive, `restored-${round}`), 'old.db'));
    const { values, rows } = copy
      .prepare('SELECT count(DISTINCT value) AS "values", count(*) AS rows FROM same')
      .get()!;
    copy.close();
    assert.deepEqual([values, rows], [1, 5000], 'states of more than one transaction');
  }
});

test('a database that is made, one that is deleted, and one that grows during the backup do no harm', async (t) => {
  const places = dataDirectory(t);
  const script = `
    const { DatabaseSync } = require('node:sqlite'); const fs = require('node:fs'); let n = 0;
    setInterval(() => { n += 1; const file = process.argv[1] + '/made-' + (n % 7) + '.db';
      if (fs.existsSync(file)) fs.rmSync(file); else { const d = new DatabaseSync(file); d.exec('CREATE TABLE t(a); INSERT INTO t VALUES (1)'); d.close(); } }, 3);`;
  startScript(t, script, places.data);
  for (let round = 0; round < 2; round += 1) {
    const made = await create(places);
    const restored = await unpack(places, made.archive, `restored-${round}`);
    assert.equal(rowsOf(join(restored, 'memory.db')), 50);
  }
});

test('a second backup at the same time is refused and disturbs nothing', async (t) => {
  const places = dataDirectory(t, 25_000);
  const first = startProgram('create', createOptions(places));
  while (!names(places).some((name) => name.includes('scratch')))
    await new Promise((done) => setTimeout(done, 5));
  const { backups } = places;
  const [listed, second] = await Promise.all([
    program('list', { backups, project: PROJECT }),
    program('create', createOptions(places)),
  ]);
  assert.deepEqual([second.code, second.error?.code], [1, 'backup-running']);
  assert.deepEqual(listed.result?.archives, [], 'but they can be listed meanwhile');
  const { result, error } = await first.ended;
  assert.ok(result?.proof, JSON.stringify(error));
});

test('without room for it nothing is begun', async (t) => {
  const places = dataDirectory(t);
  mkdirSync(join(places.data, 'sparse'));
  writeFileSync(join(places.data, 'sparse/huge'), 'x');
  truncateSync(join(places.data, 'sparse/huge'), 2 ** 43);
  const { code, error } = await program('create', createOptions(places));
  assert.deepEqual([code, error?.code], [1, 'no-space']);
  assert.deepEqual(names(places), []);
});
