// A switch that is killed, or whose engine goes away half-way: the next run brings back what ran before, or
// finishes what had already happened, and says so. Nothing is lost at any step, nor at any moment between.

import assert from 'node:assert/strict';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { kill } from '../../tasks/lib/lock.ts';
import { chosenSeed, randomNumbers } from '../random.ts';
import { socketToEngine } from './engine-socket.ts';
import type { TestProject } from './project.ts';
import {
  answerOf,
  fakeDocker,
  mustSwitch,
  runningProject,
  switchTo,
  verifyUnchanged,
} from './switch-support.ts';

/**
 * The steps that a new prod version, with dev stopping, goes through, as the journal names them. The soak kills on both
 * sides of each record, a shorter run on one of them.
 */
const STEPS = ['begin', 'create-prod', 'replace-prod', 'prove-prod', 'stop-dev', 'commit', 'close'];
const UNDONE = new Set(
  ['begin', 'create-prod', 'replace-prod', 'prove-prod', 'stop-dev']
    .flatMap((step) => [step, `${step}/recorded`])
    .concat('commit'),
);

const TO_BOTH = ['both', '--version', 'v1.0.0'];
const TO_PROD = ['prod', '--version', 'v1.0.1'];

async function startBoth(project: TestProject): Promise<Record<string, string>> {
  await mustSwitch(project, ...TO_BOTH);
  return project.snapshot();
}

/** After a kill: one run repairs. What ran before the switch runs as before, or the switch is whole: what runs now. */
async function verifyRepaired(
  project: TestProject,
  before: Record<string, string>,
  from: 'both' | 'prod',
): Promise<'both' | 'prod'> {
  const began = Date.now();
  const status = await project.task('switch-env', ['status', '--json']);
  assert.equal(status.code, 0, status.stderr);
  const { active, environments } = status.json() as {
    active: 'both' | 'prod';
    environments: Record<string, { healthy: boolean; version: string }>;
  };
  assert.ok(Date.now() - began < 10_000, 'repaired within 10 s');
  const version = active === 'both' ? '1.0.0' : '1.0.1';
  assert.equal(environments.prod?.version, version);
  if (active === 'both') assert.equal((await answerOf(project, 'dev')).env, 'dev');
  if (active === from) {
    await verifyUnchanged(project, before, version);
    return active;
  }
  assert.equal((await answerOf(project, 'prod')).version, version);
  const { containers, env } = await project.snapshot();
  const states = [`dev ${active === 'both' ? 'running' : 'exited'}`, 'prod running'];
  assert.deepEqual(
    containers!
      .split('\n')
      .map((line) => line.split(/ .*-/)[1])
      .sort(),
    states,
  );
  assert.match(env!, new RegExp(`ACTIVE_ENV=${active}\nTINY_PROD_TAG=v${version}\n$`));
  return active;
}

test('kill -9, at each step and at random moments: what ran before runs again, or the switch is whole', async (t) => {
  const seed = chosenSeed();
  const wanted = process.env.SOAK ? 100 : 20;
  t.diagnostic(`SEED=${seed}, ${wanted} random kills`);
  console.log(`SEED=${seed}`);
  const random = randomNumbers(seed);
  const project = await runningProject(t);
  await startBoth(project);
  const began = Date.now();
  await mustSwitch(project, ...TO_PROD);
  const typicalMs = Date.now() - began;
  let before = await startBoth(project);

  const points = STEPS.flatMap((step) => {
    const sides = step === 'close' ? [step] : [step, `${step}/recorded`];
    return process.env.SOAK ? sides : [sides[Math.floor(random() * sides.length)]!];
  });
  for (const point of points) {
    await t.test(point, async () => {
      const env = { RELEASE_FLOW_FAULT: `SIGKILL@switch/${point}` };
      const killed = await switchTo(project, TO_PROD, { env });
      assert.equal(killed.code, 137, killed.stderr);
      const runs = await verifyRepaired(project, before, 'both');
      assert.equal(runs, UNDONE.has(point) ? 'both' : 'prod');
      if (runs === 'prod') before = await startBoth(project);
    });
  }

  // Each of the others goes on from what the one before has left: from both to prod alone, or back to both.
  let from: 'both' | 'prod' = 'both';
  for (let kills = 0; kills < wanted; ) {
    const delay = random() * typicalMs;
    await t.test(`from ${from}, after ${delay.toFixed(0)} of ${typicalMs} ms`, async () => {
      const argv = from === 'both' ? TO_PROD : TO_BOTH;
      let timer: NodeJS.Timeout | undefined;
      const { code } = await switchTo(project, argv, {
        onStart: (pid) => {
          timer = setTimeout(() => kill(pid, 'SIGKILL'), delay);
        },
      });
      clearTimeout(timer);
      if (code === 137) kills += 1;
      const runs = await verifyRepaired(project, before, from);
      if (runs === from) return;
      from = runs;
      before = await project.snapshot();
    });
  }
});

/** After the nth command that changes something nothing answers at the engine's socket any more. */
const ENGINE_GONE = `
case "$1 $2" in
  "rename "*|"update "*|"start "*|"stop "*|"rm "*|"cp "*|"compose --project-name") changing=yes;;
esac
[ "$1" = compose ] && case "$*" in *" up "*) ;; *) changing=;; esac
[ -n "$changing" ] && echo x >> "$here/calls"
calls=$(wc -l < "$here/calls" 2>/dev/null || echo 0)
limit=$(cat "$here/limit" 2>/dev/null || echo 999)
if [ "$calls" -gt "$limit" ]; then rm -f "$here/docker.sock"; fi
if [ -n "$changing" ] && [ "$calls" -eq "$limit" ]; then
  "$real" "$@"
  code=$?
  rm -f "$here/docker.sock"
  exit "$code"
fi`;

test('an engine that goes away half-way: the message says so, and the next run brings prod back', async (t) => {
  const project = await runningProject(t);
  const before = await project.snapshot();
  const fake = await fakeDocker(t, ENGINE_GONE);
  await chmod(fake.folder, 0o755);
  const goneAfter = async (limit: number) => {
    await writeFile(`${fake.folder}/limit`, `${limit}\n`);
    await writeFile(`${fake.folder}/calls`, '');
    const argv = ['prod', '--version', 'v1.0.1', '--json'];
    const { env, close } = await socketToEngine(`${fake.folder}/docker.sock`);
    const outcome = await switchTo(project, argv, { env: { ...env, PATH: fake.PATH } });
    close();
    assert.equal(outcome.code, 1, outcome.stderr);
    const { message } = outcome.json().error as { message: string };
    assert.match(message, /Cannot connect to the Docker daemon/);
    return message;
  };
  for (const limit of process.env.SOAK ? [0, 1, 2, 3, 4, 5, 6] : [4]) {
    await t.test(`after the command number ${limit} that changes something`, async () => {
      assert.match(await goneAfter(limit), /Could not bring back what ran before/);
      assert.equal(await project.read('.env'), before.env);
      const status = await project.task('switch-env', ['status']);
      assert.match(status.stderr, /was interrupted \(at \S+\): bringing back what ran before/);
      await verifyUnchanged(project, before, '1.0.0');
    });
  }
  await t.test(
    'when all is done but the removal of the old container: told, and removed by the next run',
    async () => {
      assert.match(await goneAfter(7), /The switch to prod is done, but what runs now cannot be seen/);
      assert.match(await project.read('.env'), /PROD_TAG=v1\.0\.1\n$/);
      const status = await project.task('switch-env', ['status']);
      assert.match(status.stderr, /was interrupted at its end: finishing it/);
      assert.equal((await answerOf(project, 'prod')).version, '1.0.1');
      const { containers } = await project.snapshot();
      assert.match(containers!, /^\w+ \S+-prod running$/);
    },
  );
  assert.ok((await readFile(`${fake.folder}/calls`, 'utf8')).length > 0);
});
