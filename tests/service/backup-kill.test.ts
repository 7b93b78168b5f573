// kill -9 at any moment of making or removing archives: what was there before is still there and good, what is
// half-done never counts, and the next run clears it away.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  create,
  createOptions,
  dataDirectory,
  names,
  type Places,
  PROJECT,
  program,
  startProgram,
  verify,
} from './backup-support.ts';

const ROUNDS = process.env.SOAK ? 60 : 10;
const isArchive = (name: string) => /^synapse-.*\.tar\.zst$/.test(name);
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Kills a command `ms` after it started. */
async function killAfter(command: string, options: object, ms: number) {
  const running = startProgram(command, options);
  const timer = setTimeout(() => running.child.kill('SIGKILL'), ms);
  const outcome = await running.ended;
  clearTimeout(timer);
  return outcome;
}

/** Every archive has a record that is right about it, and those of before are there. */
async function verifyState(places: Places, before: readonly string[], context: string): Promise<void> {
  const archives = names(places).filter(isArchive);
  for (const archive of before) assert.ok(archives.includes(archive), `${context}: ${archive} is gone`);
  for (const archive of archives) assert.ok(existsSync(join(places.backups, `${archive}.json`)), context);
  for (const verdict of await verify(places)) assert.ok(verdict.ok, `${context}: ${verdict.problems}`);
}

test('create, killed at any moment: the older archive stays, no half of one counts, the next run works', async (t) => {
  const places = dataDirectory(t, 8000);
  const started = performance.now();
  const { archive: first } = await create(places);
  const duration = performance.now() - started;
  const before = [first];
  for (let round = 0; round < ROUNDS; round += 1) {
    const after = (duration * (round + 0.5)) / ROUNDS;
    const { signal } = await killAfter('create', createOptions(places), after);
    const left = names(places);
    const recorded = left
      .filter(isArchive)
      .filter((name) => JSON.parse(readFileSync(join(places.backups, `${name}.json`), 'utf8')).proof);
    await verifyState(places, before, `killed after ${after.toFixed(0)} ms (${signal})`);
    assert.ok(recorded.length >= 1);
    assert.deepEqual(
      names(places).filter((name) => name.startsWith('.')),
      [],
      `verify cleared what was left: ${left}`,
    );
    before.push(...names(places).filter((name) => isArchive(name) && !before.includes(name)));
  }
  before.push((await create(places)).archive);
  await verifyState(places, before, 'at the end');
});

test('create whose task is gone stops by itself and leaves nothing', async (t) => {
  const places = dataDirectory(t, 25_000);
  const running = startProgram('create', createOptions(places, { attached: true }));
  while (!names(places).some((name) => name.includes('scratch'))) await pause(5);
  running.child.stdin?.end();
  const { code } = await running.ended;
  assert.equal(code, 143);
  assert.deepEqual(names(places), []);
});

test('remove, killed at any moment: an archive is there with its record, or gone', async (t) => {
  const places = dataDirectory(t, 5);
  const { data, backups } = places;
  const options = (archives: string[]) => ({ data, backups, project: PROJECT, archives });
  const { archive: precious } = await create(places);
  let slowest = 60;
  for (let round = 0; round < ROUNDS; round += 1) {
    const made: string[] = [];
    for (let n = 0; n < 3; n += 1)
      made.push((await program('create', createOptions(places, { prove: false }))).result?.archive);
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
