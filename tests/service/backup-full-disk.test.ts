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
  for (let n = 0; n < 40; n += 1) writeFileSync(join(places.data, `noise-${n}`), randomBytes(55_000));
  for (let round = 0; round < TIMES; round += 1) {
    // In turns it is the archive that finds no room, and a database of which it is known before.
    if (round === TIMES / 2) makeDatabase(join(places.data, 'big.db'), 'wal', 4000);
    const { code, error, stderr } = await program('create', createOptions(places));
    assert.equal(code, 1);
    const expected = round < TIMES / 2 ? 'disk-full' : 'no-space';
    assert.equal(error?.code, expected, stderr + JSON.stringify(error));
    assert.deepEqual(names(places).sort(), [archive, `${archive}.json`]);
  }
  assert.equal((await verify(places))[0]?.ok, true);
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
