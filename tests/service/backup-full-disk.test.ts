// A disk that fills up while an archive is written: whichever part of the program hears of it first, it is told
// as what it is, nothing half-written stays, and what was there is still good.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  create,
  createOptions,
  dataDirectory,
  makeDatabase,
  names,
  program,
  verify,
} from './backup-support.ts';

/** A tmpfs of 2 MB that tests/run.ts mounts. */
const SMALL = '/small';
const TIMES = process.env.SOAK ? 12 : 4;

test('a full disk is told as one, nothing half-written stays, the older archive is good', async (t) => {
  const places = { ...dataDirectory(t), backups: join(SMALL, 'backups') };
  mkdirSync(places.backups, { mode: 0o700 });
  t.after(() => rmSync(places.backups, { recursive: true, force: true }));
  const { archive } = await create(places);
  // The first one got small by compression; what comes now does not, so that the guess is far too low.
  writeFileSync(join(places.data, 'noise'), randomBytes(2_200_000));
  for (let round = 0; round < TIMES; round += 1) {
    // In turns it is the archive and the copy of a database that finds no room.
    if (round === TIMES / 2) makeDatabase(join(places.data, 'big.db'), 'wal', 4000);
    const { code, error, stderr } = await program('create', createOptions(places));
    assert.equal(code, 1);
    assert.match(error?.code, /^(disk-full|no-space)$/, stderr + JSON.stringify(error));
    assert.deepEqual(names(places).sort(), [archive, `${archive}.json`]);
  }
  assert.equal((await verify(places))[0]?.ok, true);
});

// A copy in WAL mode asks for room for an index when it is opened: SQLite calls that an I/O error, not a full disk.
test('a disk that is full between a copy and the look at it is told as one', async (t) => {
  const places = { ...dataDirectory(t), backups: join(SMALL, 'between') };
  mkdirSync(places.backups, { mode: 0o700 });
  t.after(() => rmSync(places.backups, { recursive: true, force: true }));
  // One small database: it is copied long before the noise has filled the disk, and looked at long after.
  for (const name of ['deep/index.sqlite', 'old.db', 'nothing.db']) rmSync(join(places.data, name));
  const { archive } = await create(places);
  writeFileSync(join(places.data, 'noise'), randomBytes(2_200_000));
  for (let round = 0; round < TIMES / 2; round += 1) {
    const { code, error, stderr } = await program('create', createOptions(places));
    assert.equal(code, 1);
    assert.equal(error?.code, 'disk-full', stderr + JSON.stringify(error));
    assert.deepEqual(names(places).sort(), [archive, `${archive}.json`]);
  }
});

test('data on a full disk, to be backed up on another one: told as a full disk, not as damage', async (t) => {
  const { root, backups } = dataDirectory(t);
  const source = SMALL;
  const data = join(SMALL, 'data');
  mkdirSync(data, { mode: 0o700 });
  t.after(() => rmSync(data, { recursive: true, force: true }));
  makeDatabase(join(data, 'memory.db'), 'wal', 50);
  const { bavail, bsize } = statfsSync(SMALL);
  writeFileSync(join(data, 'noise'), randomBytes(bavail * bsize));
  const { code, error } = await program('create', createOptions({ root, source, data, backups }));
  assert.equal(code, 1);
  assert.equal(error?.code, 'disk-full', JSON.stringify(error));
});
