// kill -9 at any moment of making or removing archives: what was there before is still there and good, what is half-done
// never counts, and the next run clears it away.
import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
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
  unpackOptions,
  verify,
} from './backup-support.ts';

const ROUNDS = process.env.SOAK ? 60 : 5;
const isArchive = (name: string) => /^synapse-.*\.tar\.zst$/.test(name);

/** Kills a command `ms` after it started. */
async function killAfter(command: string, options: object, ms: number) {
  const running = startProgram(command, options);
  const timer = setTimeout(() => running.child.kill('SIGKILL'), ms);
  const outcome = await running.ended;
  clearTimeout(timer);
  return outcome;
}

/** Kills a command as soon as the archives' directory has no more than so many entries. */
async function killOnce(left: number, places: Places, command: string, options: object) {
  const running = startProgram(command, options);
  let over = false;
  const outcome = running.ended.finally(() => {
    over = true;
  });
  while (!over && names(places).length > left) await new Promise((resolve) => setImmediate(resolve));
  running.child.kill('SIGKILL');
  return outcome;
}

/** Every archive has a record that is right about it, and those of before are there. */
async function verifyState(places: Places, before: readonly string[], context: string): Promise<void> {
  const archives = names(places).filter(isArchive);
  for (const archive of before) assert.ok(archives.includes(archive), `${context}: ${archive} is gone`);
  for (const archive of archives) assert.ok(existsSync(join(places.backups, `${archive}.json`)), context);
  for (const verdict of await verify(places)) assert.ok(verdict.ok, `${context}: ${verdict.problems}`);
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test('create, killed at any moment: the older archive stays, no half of one counts, the next run works', async (t) => {
  const places = dataDirectory(t, 3000);
  const started = performance.now();
  const { archive: first } = await create(places);
  const duration = performance.now() - started;
  const before = [first];
  // What a killed rehearsal leaves.
  mkdirSync(join(places.backups, `.release-flow-.${PROJECT}-scratch-rehearsal-1-new`));
  let kills = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const after = (duration * (round + 0.5)) / ROUNDS;
    const { signal } = await killAfter('create', createOptions(places), after);
    if (signal) kills += 1;
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
  t.diagnostic(`${kills} of ${ROUNDS} were killed before their end`);
  assert.ok(kills > 0);
});

/** The command, what it makes while it is at work, and where. */
const ABANDONED: [command: string, at: 'backups' | 'root', makes: RegExp][] = [
  ['create', 'backups', /scratch/],
  ['unpack-to', 'root', /^\.release-flow-restored-new$/],
];

for (const [command, at, makes] of ABANDONED)
  test(`${command} whose task is gone stops by itself and leaves nothing`, async (t) => {
    const places = dataDirectory(t, 25_000);
    const archive = command === 'create' ? '' : (await create(places)).archive;
    const options = command === 'create' ? createOptions(places) : unpackOptions(places, archive);
    const left = () => readdirSync(places[at]).filter((name) => name !== `.${PROJECT}.lock`);
    const before = left();
    const running = startProgram(command, options);
    while (!left().some((name) => makes.test(name))) await pause(5);
    running.child.stdin?.end();
    assert.equal((await running.ended).code, 143);
    assert.deepEqual(left(), before);
  });

test('an answer of several megabytes arrives whole, also at a reader that takes its time', async (t) => {
  const places = dataDirectory(t, 5);
  for (let n = 0; n < 10_000; n += 1) {
    const stamp = new Date(n * 60_000).toISOString().replace(/[-:]|\.\d+/g, '');
    writeFileSync(join(places.backups, `synapse-${stamp}-${'v'.repeat(200)}.tar.zst`), '');
  }
  const running = startProgram('list', { backups: places.backups, project: PROJECT });
  running.child.stdout?.pause();
  await pause(500);
  running.child.stdout?.resume();
  const { code, result } = await running.ended;
  assert.equal(code, 0);
  assert.equal(result?.archives.length, names(places).length);
  assert.ok(JSON.stringify(result).length > 4_000_000);
});

test('remove, killed at any moment: an archive is there with its record, or gone', async (t) => {
  const places = dataDirectory(t, 5);
  const { backups } = places;
  const options = (archives: string[]) => ({ backups, project: PROJECT, archives });
  const { archive: precious } = await create(places);
  const made: string[] = [];
  for (let n = 0; n < 3; n += 1) made.push((await create(places)).archive);
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
