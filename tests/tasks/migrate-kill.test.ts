// A migration that dies at any step, on its way there and on its way back. What would be lost here is the way home.
// The soak (SOAK=1) kills at both moments of every step.
import assert from 'node:assert/strict';
import { rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { type LegacySetup, tinyLegacy } from './legacy.ts';
import { docker } from './processes.ts';

const BEFORE_COMMIT = [
  ...['images', 'settings', 'rehearse', 'stop', 'copy', 'place', 'backup', 'models', 'start', 'verify'],
  ...['commit', 'record'],
];
const AFTER_COMMIT = ['start-dev', 'verify-dev'];
const STEPS = [...BEFORE_COMMIT, ...AFTER_COMMIT];

const migrate = (old: LegacySetup, argv: string[] = [], fault?: string) =>
  old.project.task('migrate', ['--yes', '--json', ...argv], {
    env: fault ? { RELEASE_FLOW_FAULT: `${fault.includes('@') ? '' : 'SIGKILL@'}${fault}` } : {},
  });

async function killedAt(old: LegacySetup, point: string, argv: string[] = []): Promise<void> {
  const died = await migrate(old, argv, `SIGKILL@migrate/${point}`);
  assert.equal(died.code, 137, `${point} was not reached: ${died.stderr}`);
}

test('killed at each step, there and back: every byte of the old data is there', async (t) => {
  const old = await tinyLegacy(t);
  const [before, facts] = [await old.snapshot(), await old.facts()];
  const times = await stat(old.data);
  const isBack = async (what: string) => {
    assert.deepEqual(await old.snapshot(), before, what);
    assert.deepEqual(await old.facts(), facts, what);
  };
  const isMigrated = async (what: string) => {
    const done = await migrate(old);
    assert.equal(done.code, 0, `${what}: ${done.stderr}`);
    assert.equal(done.json().state, 'migrated', what);
    for (const name of ['dev', 'prod'] as const) assert.equal((await old.project.health(name)).env, name);
  };
  const rollsBack = async (what: string) => {
    const back = await migrate(old, ['--rollback']);
    assert.equal(back.code, 0, `${what}: ${back.stderr}`);
    await isBack(what);
  };

  await t.test(
    'the new version does not run on the old data: known before the old service stops',
    async () => {
      const running = () => docker('inspect', '--format', '{{.Id}} {{.State.StartedAt}}', old.service);
      const since = await running();
      await writeFile(join(old.data, 'poison'), '');
      const refused = await migrate(old);
      assert.equal((refused.json().error as { code: string }).code, 'rehearsal-failed', refused.stderr);
      assert.equal(await running(), since, 'the old service never stopped');
      await rm(join(old.data, 'poison'));
      await utimes(old.data, times.atime, times.mtime);
      await isBack('after a rehearsal that failed');
    },
  );

  await t.test(
    'dev does not start: prod, which is well, keeps running, and the next run finishes',
    async () => {
      const { name } = old.project;
      const good = await docker('image', 'inspect', '--format', '{{.Id}}', `${name}:latest`);
      await docker('image', 'tag', old.image, `${name}:latest`);
      const failed = await migrate(old);
      assert.equal(failed.code, 1, failed.stderr);
      assert.match((failed.json().error as { hint: string }).hint, /keeps running; resume: .*--rollback/s);
      assert.equal((await old.project.health('prod')).env, 'prod');
      await docker('image', 'tag', good, `${name}:latest`);
      await isMigrated('once the cause is gone');
      await docker('image', 'tag', old.image, `${name}:latest`);
      await rollsBack('also from there');
      const again = await migrate(old);
      assert.equal(again.code, 1, again.stderr);
      await docker('image', 'tag', good, `${name}:latest`);
      await rollsBack('or instead of finishing');
    },
  );

  const interrupted = await migrate(old, [], 'SIGINT@migrate/copy');
  assert.equal(interrupted.code, 130, interrupted.stderr);
  await isBack('Ctrl-C undoes at once');

  const moments = (index: number) => (process.env.SOAK ? ['', '/applied'] : [index % 2 ? '' : '/applied']);
  for (const [index, step] of BEFORE_COMMIT.entries()) {
    for (const moment of moments(index)) {
      // Its end is the commit: from then on it is finished.
      if (step === 'record' && moment) continue;
      await killedAt(old, `${step}${moment}`);
      await rollsBack(`killed at ${step}${moment}`);
    }
  }
  await killedAt(old, 'settings');
  await isMigrated('undone, and migrated by the next run');
  const phases = Object.keys((await lastHistory(old)).phases ?? {});
  assert.deepEqual(phases, STEPS, 'every step was killed once');
  await rollsBack('in one go');

  for (const point of ['record/applied', ...AFTER_COMMIT.map((step) => `${step}/applied`), 'close']) {
    await killedAt(old, point);
    await isMigrated(`killed at ${point}`);
    await rollsBack(`after ${point}`);
  }
  if (process.env.SOAK) {
    await killedAt(old, 'close');
    await rollsBack('instead of finishing');
  }
  await isMigrated('again');
  for (const step of [...STEPS].reverse()) await killedAt(old, `${step}/undo`, ['--rollback']);
  await rollsBack('killed at each step of the rollback');
});

async function lastHistory(old: LegacySetup): Promise<{ phases?: Record<string, number> }> {
  const lines = (await old.project.read('.synapse/history.jsonl')).trim().split('\n');
  return lines.map((line) => JSON.parse(line)).findLast(({ task }) => task === 'migrate');
}
