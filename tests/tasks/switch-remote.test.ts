// Switching on another machine's engine, over ssh: its ports answer there and not here, its containers get the
// configuration from here, and what it decided does not mix with this machine's .env.
import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { chosenSeed, randomFrom } from '../random.ts';
import { errorOf } from './release-support.ts';
import { overSsh, secondEngine } from './second-engine.ts';
import { addConfig, releasedProject, releaseTiny, switchTo } from './switch-support.ts';

/**
 * Steps of a switch at whose beginning the engine dies: with the old container still up, and with it stopped. One of
 * the two in a shorter run, by SEED=…; these and more in the soak.
 */
const DEATHS = ['create-prod/applied', 'start-prod/applied'];
const MORE_DEATHS = ['create-prod', 'retire-prod', 'retire-prod/applied', 'start-prod'];

async function untilStopped(pid: number): Promise<void> {
  for (let tries = 0; tries < 600; tries += 1) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    if (stat.split(') ')[1]?.startsWith('T')) return;
    await sleep(50);
  }
  throw new Error('it did not come to that point');
}

test('over ssh the other machine runs what was released here, and keeps it when a new version fails', async (t) => {
  const engine = await secondEngine(t);
  const env = await overSsh(engine, 'pi');
  const project = await releasedProject(t);
  await addConfig(project, '    volumes: ["$TINY_DATA_DIR:/data"]\n');
  await project.edit('.env', (text) => `${text}TINY_DATA_DIR=${join(engine.folder, 'tiny-data')}\n`);
  await releaseTiny(project, 'v1.0.2', 'wrong-version');
  await engine.load(project, 'v1.0.0', 'v1.0.1', 'v1.0.2');
  const before = await project.read('.env');
  const remote = (...argv: string[]) => switchTo(project, [...argv, '--context', 'pi', '--json'], { env });
  const running = async () =>
    (await engine.docker('ps', '--format', '{{.Names}} {{.Image}}')).split('\n').sort();

  const config = () => engine.docker('exec', `${project.name}-prod`, 'busybox', 'cat', '/etc/tiny/app.json');

  await t.test('a data directory that is missing on that machine is reported', async () => {
    const outcome = await remote('prod', '--version', 'v1.0.0');
    assert.equal(outcome.code, 1);
    assert.match(errorOf(outcome).message, /data directory .*tiny-data does not exist/);
    assert.equal(await engine.docker('ps', '--all', '--quiet'), '');
  });

  await t.test('prod starts, with the configuration of this machine', async () => {
    await mkdir(join(engine.folder, 'tiny-data'), { mode: 0o700 });
    const outcome = await remote('prod', '--version', 'v1.0.0');
    assert.equal(outcome.code, 0, outcome.stderr);
    const { environments } = outcome.json() as {
      environments: Record<string, { version: string; url: string }>;
    };
    assert.equal(environments.prod?.version, '1.0.0');
    assert.equal(environments.prod?.url, `http://pi:${project.ports.prod}`);
    assert.equal(await config(), '{"price": "5$"}');
    await assert.rejects(project.health('prod'), 'nothing answers on this machine');
  });

  await t.test('a new version replaces it there, with the configuration as it is now', async () => {
    await project.write('app.json', '{"price": "6$"}\n');
    const outcome = await remote('prod', '--version', 'v1.0.1');
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.ok((outcome.json().gaps as Record<string, number>).prod! > 0, 'the gap was measured through ssh');
    assert.deepEqual(await running(), [`${project.name}-prod ${project.name}:v1.0.1`]);
    assert.equal(await config(), '{"price": "6$"}');
  });

  await t.test('a container that reports another version is rolled back', async () => {
    const outcome = await remote('prod', '--version', 'v1.0.2');
    assert.equal(errorOf(outcome).code, 'unhealthy', outcome.stderr);
    assert.deepEqual(await running(), [`${project.name}-prod ${project.name}:v1.0.1`]);
  });

  const seed = chosenSeed();
  t.diagnostic(`SEED=${seed}`);
  for (const point of process.env.SOAK ? [...DEATHS, ...MORE_DEATHS] : [randomFrom(seed).pick(DEATHS)]) {
    await t.test(`its engine dies at ${point}: reported, and the next run rolls back`, async () => {
      let pid = 0;
      const switching = switchTo(project, ['prod', '--version', 'v1.0.0', '--context', 'pi', '--json'], {
        // It stops there and waits, so that the engine is gone at just that moment.
        env: { ...env, RELEASE_FLOW_FAULT: `SIGSTOP@switch@pi/${point}` },
        onStart: (id) => {
          pid = id;
        },
      });
      await untilStopped(pid);
      process.kill(await engine.pid(), 'SIGKILL');
      process.kill(pid, 'SIGCONT');
      const outcome = await switching;
      assert.equal(outcome.code, 1, outcome.stderr);
      assert.match(errorOf(outcome).message, /Could not undo/);
      await engine.restart();
      const interrupted = (await remote('status')).json().interrupted as { command: string };
      assert.match(interrupted.command, /switch -- prod --version v1\.0\.0 --context pi$/);
      const status = await remote('prod', '--version', 'v1.0.1');
      assert.match(status.stderr, /was interrupted at ".*undone first/);
      assert.equal(status.json().changed, false, 'it was rolled back');
      assert.deepEqual(await running(), [`${project.name}-prod ${project.name}:v1.0.1`]);
      const { environments } = status.json() as { environments: Record<string, { version: string }> };
      assert.equal(environments.prod?.version, '1.0.1', 'and answers');
      assert.equal(await engine.docker('ps', '--all', '--format', '{{.Names}}'), `${project.name}-prod`);
    });
  }

  await t.test('what that machine runs is written apart from what this one runs', async () => {
    assert.equal(await project.read('.env'), before);
    assert.equal(await project.read('.env.context.pi'), 'TINY_ACTIVE_ENV=prod\nTINY_PROD_TAG=v1.0.1\n');
  });
});
