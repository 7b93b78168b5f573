// A switch that is killed, or whose engine goes away half-way: the next run rolls it back, or finishes what had already
// happened, and says so. Nothing is lost at any step, nor at any moment between.

import assert from 'node:assert/strict';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { kill } from '../../tasks/lib/lock.ts';
import { chosenSeed, randomNumbers } from '../random.ts';
import { socketToEngine } from './engine-socket.ts';
import { docker, processesGone } from './processes.ts';
import type { TestProject } from './project.ts';
import {
  answerOf,
  fakeDocker,
  mustSwitch,
  releaseTiny,
  runningProject,
  switchTo,
  verifyUnchanged,
} from './switch-support.ts';

const TO_BOTH = ['both', '--version', 'v1.0.0'];
const TO_PROD = ['prod', '--version', 'v1.0.1'];

/** In the environment of each task that is killed here. */
const MARK = { RELEASE_FLOW_TEST: `switch-kill-${process.pid}` };

async function startBoth(project: TestProject): Promise<Record<string, string>> {
  await mustSwitch(project, ...TO_BOTH);
  return project.snapshot();
}

/** The names of the steps of the last switch, in order: its history measures each. */
async function stepsOfLastSwitch(project: TestProject): Promise<string[]> {
  const lines = (await project.read('.synapse/history.jsonl')).trim().split('\n');
  return Object.keys(JSON.parse(lines.at(-1)!).phases);
}

/** After a kill: status changes nothing; the next switch resumes, and then has nothing to do. What runs then. */
async function resume(project: TestProject): Promise<'both' | 'prod'> {
  await processesGone(`RELEASE_FLOW_TEST=${MARK.RELEASE_FLOW_TEST}`);
  const killed = await project.snapshot();
  const status = await project.task('switch-env', ['status', '--json']);
  assert.equal(status.code, 0, status.stderr);
  assert.deepEqual(await project.snapshot(), killed, 'status only reads');
  const active = /ACTIVE_ENV=prod$/m.test(killed.env!) ? 'prod' : 'both';
  const outcome = await mustSwitch(project, ...(active === 'prod' ? TO_PROD : TO_BOTH), '--json');
  assert.equal(outcome.json().changed, false, outcome.stderr);
  return active;
}

async function verifyResumed(project: TestProject, before: Record<string, string>, from: 'both' | 'prod') {
  const active = await resume(project);
  const version = active === 'both' ? '1.0.0' : '1.0.1';
  if (active === from) await verifyUnchanged(project, before, version);
  assert.equal((await answerOf(project, 'prod')).version, version);
  if (active === 'both') assert.equal((await answerOf(project, 'dev')).env, 'dev');
  const { containers, env } = await project.snapshot();
  const states = containers!.split('\n').map((line) => line.split(/ .*-/)[1]);
  assert.deepEqual(states.sort(), [`dev ${active === 'both' ? 'running' : 'exited'}`, 'prod running']);
  assert.match(env!, new RegExp(`ACTIVE_ENV=${active}\nTINY_PROD_TAG=v${version}\n$`));
  return active;
}

test('kill -9, at each step and at random moments: the next run rolls back, or the switch is complete', async (t) => {
  const seed = chosenSeed();
  const wanted = process.env.SOAK ? 100 : 12;
  t.diagnostic(`SEED=${seed}, ${wanted} random kills`);
  console.log(`SEED=${seed}`);
  const random = randomNumbers(seed);
  const project = await runningProject(t);
  await releaseTiny(project, 'v1.0.2', 'wrong-version');
  await startBoth(project);
  const began = Date.now();
  await mustSwitch(project, ...TO_PROD);
  const typicalMs = Date.now() - began;
  const steps = await stepsOfLastSwitch(project);
  let before = await startBoth(project);

  // Each step as it begins, once applied, and while it is undone, which a version that fails makes it be.
  const undone = steps.slice(0, steps.indexOf('prove-prod')).map((step) => `${step}/undo`);
  const forward = steps.flatMap((step) => {
    const sides = [step, `${step}/applied`];
    return process.env.SOAK ? sides : [sides[Math.floor(random() * 2)]!];
  });
  const commit = forward.findIndex((point) => point.startsWith('remember'));
  const points = [
    ...forward,
    'close',
    ...(process.env.SOAK ? undone : [undone[Math.floor(random() * undone.length)]!]),
  ];
  for (const [index, point] of points.entries()) {
    await t.test(point, async () => {
      const env = { ...MARK, RELEASE_FLOW_FAULT: `SIGKILL@switch/${point}` };
      const argv = point.endsWith('/undo') ? ['prod', '--version', 'v1.0.2'] : TO_PROD;
      const killed = await switchTo(project, argv, { env });
      assert.equal(killed.code, 137, killed.stderr);
      const runs = await verifyResumed(project, before, 'both');
      const isWhole =
        point === 'close' || point === 'remember/applied' || (index > commit && !point.endsWith('/undo'));
      assert.equal(runs, isWhole ? 'prod' : 'both');
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
        env: MARK,
        onStart: (pid) => {
          timer = setTimeout(() => kill(pid, 'SIGKILL'), delay);
        },
      });
      clearTimeout(timer);
      if (code === 137) kills += 1;
      const runs = await verifyResumed(project, before, from);
      if (runs === from) return;
      from = runs;
      before = await project.snapshot();
    });
  }
});

/** Where a kill and a prune of stopped containers together removed something that a rollback needs. */
const PRUNED = [
  'create-prod/applied',
  'retire-prod/applied',
  'start-prod/applied',
  'take-over-prod/applied',
  'stop-dev/applied',
];

test('killed, then pruned: status removes nothing, and the next switch works', async (t) => {
  const project = await runningProject(t);
  const ofProject = `label=com.docker.compose.project=${project.name}`;
  for (const point of PRUNED) {
    await t.test(point, async () => {
      await mustSwitch(project, ...TO_BOTH);
      const env = { RELEASE_FLOW_FAULT: `SIGKILL@switch/${point}` };
      assert.equal((await switchTo(project, TO_PROD, { env })).code, 137);
      await docker('container', 'prune', '--force', '--filter', ofProject);
      const pruned = await project.snapshot();
      const status = await project.task('switch-env', ['status']);
      assert.match(
        status.stdout,
        /switch was interrupted .*resume it: npm run switch -- prod --version v1\.0\.1/,
      );
      assert.deepEqual(await project.snapshot(), pruned, 'status only reads');
      await mustSwitch(project, ...TO_PROD);
      assert.equal((await answerOf(project, 'prod')).version, '1.0.1');
      const { containers } = await project.snapshot();
      // From the start on, it is the new container that serves.
      const serving = /^.*-prod running$/m.exec(pruned.containers!)?.[0];
      if (serving && !point.startsWith('create'))
        assert.ok(containers!.includes(serving), 'the container that served was not replaced');
      assert.doesNotMatch((await project.task('switch-env', ['status'])).stdout, /interrupted/);
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
    assert.match(message, /cannot connect.*Docker daemon/i);
    return message;
  };
  for (const limit of process.env.SOAK ? [0, 1, 2, 3, 4, 5, 6, 7] : [5]) {
    await t.test(`after the command number ${limit} that changes something`, async () => {
      assert.match(await goneAfter(limit), /Could not undo/);
      assert.equal(await project.read('.env'), before.env);
      const again = await mustSwitch(project, 'prod', '--version', 'v1.0.0');
      assert.match(again.stderr, /was interrupted at ".*undone first/);
      assert.match(again.stdout, /^Nothing to do/);
      await verifyUnchanged(project, before, '1.0.0');
    });
  }
  await t.test(
    'when all is done but the removal of the old container: reported, and removed by the next run',
    async () => {
      assert.match(
        await goneAfter(8),
        /The switch is done, but the old container of prod could not be removed/,
      );
      assert.match(await project.read('.env'), /PROD_TAG=v1\.0\.1\n$/);
      const again = await mustSwitch(project, 'prod');
      assert.match(again.stderr, /was interrupted at ".*finished first/);
      assert.equal((await answerOf(project, 'prod')).version, '1.0.1');
      const { containers } = await project.snapshot();
      assert.match(containers!, /^\w+ \S+-prod running$/);
    },
  );
  assert.ok((await readFile(`${fake.folder}/calls`, 'utf8')).length > 0);
});
