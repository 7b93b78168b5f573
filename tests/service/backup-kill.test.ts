// kill -9 at any moment of making an archive: what was there before is still there and good, what is half-done
// never counts, and the next run clears it away.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { isArchive, killAfter, ROUNDS, verifyState } from './backup-kill-support.ts';
import { create, createOptions, dataDirectory, names, PROJECT, startProgram } from './backup-support.ts';

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test('create, killed at any moment: the older archive stays, no half of one counts, the next run works', async (t) => {
  const places = dataDirectory(t, 3000);
  const started = performance.now();
  const { archive: first } = await create(places);
  const duration = performance.now() - started;
  const before = [first];
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

test('create whose task is gone stops by itself and leaves nothing', async (t) => {
  const places = dataDirectory(t, 25_000);
  const running = startProgram('create', createOptions(places, { attached: true }));
  while (!names(places).some((name) => name.includes('scratch'))) await pause(5);
  running.child.stdin?.end();
  const { code } = await running.ended;
  assert.equal(code, 143);
  assert.deepEqual(names(places), []);
});

test('a session answers one request after another; when its task is gone it stops what is under way', async (t) => {
  const places = dataDirectory(t, 12_000);
  const { archive } = await create(places);
  const before = readdirSync(places.root).sort();
  const running = startProgram('session', { attached: true, root: true });
  const ask = (command: string, options: object) =>
    running.child.stdin?.write(`${JSON.stringify({ command, options })}\n`);
  const { root: parent, backups } = places;
  ask('list', { backups, project: PROJECT });
  ask('nonsense', {});
  ask('unpack', { archive: join(backups, archive), parent, name: 'data' });
  ask('unpack', { archive: join(backups, archive), parent, name: 'restored' });
  while (!readdirSync(parent).includes('restored')) await pause(5);
  running.child.stdin?.end();
  const { code, lines } = await running.ended;
  assert.equal(code, 143);
  const answers = lines.filter(({ event }) => event !== 'progress');
  const said = answers.map(({ event, code: why, archives }) => why ?? archives?.[0].archive ?? event);
  assert.deepEqual(said, ['ready', archive, 'usage', 'target-exists']);
  assert.deepEqual(readdirSync(parent).sort(), before);
});
