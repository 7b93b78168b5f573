// Switching on the real engine: what is wanted runs, and whatever goes wrong, the previous state is restored,
// .env is as it was, and the message names the cause.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { docker } from './processes.ts';
import {
  answerOf,
  type Behaviour,
  buildTiny,
  fakeDocker,
  inspect,
  mustSwitch,
  refuses,
  releaseTiny,
  runningProject,
  switchTo,
  verifyUnchanged,
} from './switch-support.ts';

test('switching between environments and versions', async (t) => {
  const project = await runningProject(t);

  await t.test('prod → dev → prod: no client finds neither', async () => {
    for (const target of ['dev', 'prod'] as const) {
      const outcome = (await mustSwitch(project, target, '--json')).json();
      assert.equal(outcome.active, target);
      assert.equal((outcome.gaps as Record<string, number>).any, 0);
      assert.equal((await answerOf(project, target)).env, target);
    }
    assert.equal(await inspect(`${project.name}-dev`, '{{.State.Status}}'), 'exited');
  });

  await t.test('a second run has nothing to do', async () => {
    const before = await project.snapshot();
    const outcome = await mustSwitch(project, 'prod', '--json');
    assert.equal(outcome.json().changed, false);
    assert.deepEqual(await project.snapshot(), before);
  });

  await t.test('prod gets a new version under its own name, and previous goes back', async () => {
    const outcome = (await mustSwitch(project, 'prod', '--version', 'latest-release', '--json')).json();
    assert.ok((outcome.gaps as Record<string, number>).prod! > 0, 'the gap was measured');
    assert.equal((await answerOf(project, 'prod')).version, '1.0.1');
    assert.equal(await inspect(`${project.name}-prod`, '{{.HostConfig.RestartPolicy.Name}}'), 'always');
    // As compose sees it: the replaced container is gone.
    const format = ['ps', '--all', '--format', '{{.Service}} {{.Name}} {{.State}}'];
    assert.equal(
      await docker('compose', '--project-name', project.name, ...format),
      `tiny-dev ${project.name}-dev exited\ntiny-prod ${project.name}-prod running`,
    );
    await mustSwitch(project, 'prod', '--version', 'previous');
    assert.equal((await answerOf(project, 'prod')).version, '1.0.0');
  });

  await t.test('the history has from, to, phases and gaps; .env is private', async () => {
    const lines = (await project.read('.synapse/history.jsonl')).trim().split('\n');
    const last = JSON.parse(lines.at(-1)!);
    assert.deepEqual([last.task, last.outcome, last.prod], ['switch', 'done', 'v1.0.0']);
    assert.ok(last.phases['prove-prod'] > 0 && last.gaps.prod > 0);
    assert.equal((await stat(`${project.root}/.env`)).mode & 0o777, 0o600);
  });

  const failing: [Behaviour, text: RegExp][] = [
    ['unhealthy', /Cannot start prod: .*answered 404, expected 200/],
    // The cause once: the log has nothing else.
    [
      'crash',
      /^Cannot start prod: container exited with code 3: tiny-app: cannot start, as asked\nthe previous/,
    ],
    ['wrong-version', /reports version "9\.9\.9", expected "2\.0\.\d"/],
  ];
  for (const [index, [behaviour, text]] of failing.entries()) {
    await t.test(`a version that is ${behaviour} never takes prod away`, async () => {
      await releaseTiny(project, `v2.0.${index}`, behaviour);
      await refuses(project, ['prod', '--version', `v2.0.${index}`, '--wait', '2'], ['unhealthy', text]);
    });
  }

  await t.test('an image that somebody re-tagged', async () => {
    await releaseTiny(project, 'v2.1.0');
    await docker('tag', `${project.name}:latest`, `${project.name}:v2.1.0`);
    await refuses(project, ['prod', '--version', 'v2.1.0'], ['image-changed', /is not the released one/]);
  });

  await t.test('dev that crashes leaves prod alone', async () => {
    await buildTiny(project, 'latest', 'crash');
    await refuses(project, ['dev'], ['unhealthy', /^Cannot start dev: container exited with code 3: /]);
    await buildTiny(project, 'latest', 'ok');
  });

  await t.test('two problems are reported together: port taken and no such release', async (s) => {
    const listen = `require('net').createServer().listen(${project.ports.dev}, '127.0.0.1', () => console.log('up'))`;
    const holder = spawn(process.execPath, ['-e', listen]);
    s.after(() => holder.kill());
    await once(holder.stdout, 'data');
    const text = new RegExp(
      `v7\\.7\\.7 is not a release[\\s\\S]*Port ${project.ports.dev}, which dev needs, is taken by node \\(pid ${holder.pid}\\)`,
    );
    await refuses(project, ['both', '--version', 'v7.7.7'], ['not-released', text]);
  });

  await t.test('a port that a container has', async (s) => {
    const name = `${project.name}-holder`;
    s.after(() => docker('rm', '--force', name));
    const flags = ['--detach', '--name', name, '--publish', `127.0.0.1:${project.ports.dev}:1`];
    await docker('run', ...flags, process.env.TEST_BASE_IMAGE ?? 'synapse-node:24', 'sleep', '60');
    await refuses(project, ['dev'], ['port-taken', new RegExp(`taken by the container ${name}`)]);
  });

  await t.test('Ctrl-C while prod is being replaced: the old version answers again, exit 130', async (s) => {
    await releaseTiny(project, 'v3.0.0', 'unhealthy');
    const before = await project.snapshot();
    const { PATH, folder } = await fakeDocker(s, `case "$1" in start) touch "$here/started";; esac`);
    let pid = 0;
    const running = switchTo(project, ['prod', '--version', 'v3.0.0'], {
      env: { PATH },
      onStart: (id) => (pid = id),
    });
    while (!(await stat(`${folder}/started`).catch(() => undefined))) await sleep(20);
    process.kill(pid, 'SIGINT');
    const outcome = await running;
    assert.equal(outcome.code, 130, outcome.stderr);
    await verifyUnchanged(project, before, '1.0.0');
  });
});
