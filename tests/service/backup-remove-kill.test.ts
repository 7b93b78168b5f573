// kill -9 at any moment of removing archives: each is there with its record, or gone, and the next run removes the rest.
import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { isArchive, killAfter, ROUNDS, verifyState } from './backup-kill-support.ts';
import { create, createOptions, dataDirectory, names, PROJECT, program } from './backup-support.ts';

test('remove, killed at any moment: an archive is there with its record, or gone', async (t) => {
  const places = dataDirectory(t, 5);
  const { data, backups } = places;
  const options = (archives: string[]) => ({ data, backups, project: PROJECT, archives });
  const { archive: precious } = await create(places);
  const made: string[] = [];
  for (let n = 0; n < 3; n += 1)
    made.push((await program('create', createOptions(places, { prove: false }))).result?.archive);
  const whole = join(places.root, 'whole');
  cpSync(backups, whole, { recursive: true, preserveTimestamps: true });
  let slowest = 60;
  for (let round = 0; round < ROUNDS; round += 1) {
    cpSync(whole, backups, { recursive: true, preserveTimestamps: true });
    const started = performance.now();
    await killAfter('remove', options(made), slowest * (0.5 + (0.7 * round) / ROUNDS));
    slowest = Math.max(60, performance.now() - started);
    await verifyState(places, [precious], `round ${round}`);
    const rest = names(places).filter((name) => isArchive(name) && name !== precious);
    const { result } = await program('remove', options(made));
    assert.deepEqual(result?.removed, rest);
    assert.deepEqual(names(places).sort(), [precious, `${precious}.json`]);
  }
});
