// kill -9 at any moment of removing archives: each is there with its record, or gone, and the next run removes the rest.
import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { isArchive, killOnce, ROUNDS, verifyState } from './backup-kill-support.ts';
import { create, createOptions, dataDirectory, names, PROJECT, program } from './backup-support.ts';

test('remove, killed at any moment: an archive is there with its record, or gone', async (t) => {
  const places = dataDirectory(t, 5);
  const { backups } = places;
  const options = (archives: string[]) => ({ backups, project: PROJECT, archives });
  const { archive: precious } = await create(places);
  const made: string[] = [];
  for (let n = 0; n < 3; n += 1)
    made.push((await program('create', createOptions(places, { prove: false }))).result?.archive);
  const whole = join(places.root, 'whole');
  cpSync(backups, whole, { recursive: true, preserveTimestamps: true });
  const entries = names(places).length;
  let halfDone = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    cpSync(whole, backups, { recursive: true, preserveTimestamps: true });
    // After the first entry has gone, after the second, …: each is a place to die in.
    const { signal } = await killOnce(entries - 1 - (round % 5), places, 'remove', options(made));
    const left = names(places).length;
    if (signal && left < entries && left > 2) halfDone += 1;
    await verifyState(places, [precious], `round ${round}`);
    const rest = names(places).filter((name) => isArchive(name) && name !== precious);
    const { result } = await program('remove', options(made));
    assert.deepEqual(result?.removed, rest);
    assert.deepEqual(names(places).sort(), [precious, `${precious}.json`]);
  }
  t.diagnostic(`${halfDone} of ${ROUNDS} were half done`);
  assert.ok(halfDone > 0, 'at least one was killed while it removed');
});
