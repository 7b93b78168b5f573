// A migration that dies at any step, on its way there and on its way back: the next run continues, or
// --rollback undoes. What would be lost here is the way home. The soak (SOAK=1) kills at every
// point, before its record and after it; SEED=… repeats a run of it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { STEPS } from '../../tasks/lib/migrate/steps.ts';
import { chosenSeed, randomNumbers } from '../random.ts';
import type { LegacySetup } from './legacy.ts';
import { tinyLegacy } from './legacy-tiny.ts';

const around = (point: string) => [point, `${point}/recorded`];

/** Every moment at which something is written down, in order. */
const FORWARD = [
  ...around('begun'),
  ...STEPS.flatMap((step) => [
    ...around(`${step}-started`),
    ...(step === 'stop' ? around('stop-begins') : []),
    ...(step === 'data' ? around('data-copied') : []),
    ...around(`${step}-done`),
  ]),
  ...around('migrated'),
  'close',
];
const BACK = [
  ...around('rollback-begun'),
  ...[...STEPS]
    .reverse()
    .flatMap((step) => [...around(`undo-${step}-started`), ...around(`undo-${step}-done`)]),
  ...around('rolled-back'),
  'close',
];

const migrate = (old: LegacySetup, argv: string[] = [], fault?: string) =>
  old.project.task('migrate', ['--yes', '--json', ...argv], {
    env: fault ? { RELEASE_FLOW_FAULT: `SIGKILL@migrate/${fault}` } : {},
  });

async function killedAt(old: LegacySetup, fault: string, argv: string[] = []): Promise<void> {
  const died = await migrate(old, argv, fault);
  assert.equal(died.code, 137, `${fault} was not reached: ${died.stderr}`);
}

async function isMigrated(old: LegacySetup, facts: unknown): Promise<void> {
  const done = await migrate(old);
  assert.equal(done.code, 0, done.stderr);
  const { state, steps } = done.json() as { state: string; steps: Record<string, { state: string }> };
  assert.equal(state, 'migrated');
  assert.deepEqual(
    Object.values(steps).map((step) => step.state),
    STEPS.map(() => 'done'),
  );
  for (const name of ['dev', 'prod'] as const) assert.equal((await old.project.health(name)).env, name);
  assert.equal((facts as unknown[]).length, 200);
}

async function isBack(old: LegacySetup, before: object, facts: unknown): Promise<void> {
  const back = await migrate(old, ['--rollback']);
  assert.equal(back.code, 0, back.stderr);
  assert.deepEqual(await old.snapshot(), before);
  assert.deepEqual(await old.facts(), facts);
}

test('killed after each step, there and back: every byte of the old data is there', async (t) => {
  const old = await tinyLegacy(t);
  const [before, facts] = [await old.snapshot(), await old.facts()];
  const interrupted = await old.project.task('migrate', ['--yes', '--json'], {
    env: { RELEASE_FLOW_FAULT: 'SIGINT@migrate/prepare-started' },
  });
  assert.equal(interrupted.code, 130, interrupted.stderr);
  assert.match(interrupted.stderr, /it goes on from here: npx tsx tasks\/migrate\.ts --yes/);
  for (const step of STEPS) await killedAt(old, `${step}-done`);
  await isMigrated(old, facts);
  for (const step of [...STEPS].reverse()) await killedAt(old, `undo-${step}-done`, ['--rollback']);
  await isBack(old, before, facts);

  if (!process.env.SOAK) return;
  // Anywhere, and undone from there.
  const seed = chosenSeed();
  t.diagnostic(`SEED=${seed}`);
  const random = randomNumbers(seed);
  const pick = (points: readonly string[]) => points[Math.floor(random() * points.length)]!;
  for (const there of FORWARD) {
    t.diagnostic(`killed at ${there}`);
    await killedAt(old, there);
    await migrate(old, ['--rollback'], pick(BACK.slice(0, 2)));
    await isBack(old, before, facts);
  }
  for (const point of BACK) {
    await isMigrated(old, facts);
    t.diagnostic(`killed at ${point}`);
    await killedAt(old, point, ['--rollback']);
    await isBack(old, before, facts);
  }
});
