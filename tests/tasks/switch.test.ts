// Switching on the real engine: what is wanted runs, and whatever goes wrong, the previous state is restored,
// .env is as it was, and the message names the cause.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { test } from 'node:test';
import { docker } from './processes.ts';
import type { TestProject } from './project.ts';
import {
  answerOf,
  type Behaviour,
  buildTiny,
  fakeDocker,
  mustSwitch,
  releaseTiny,
  runningProject,
  switchTo,
  verifyUnchanged,
} from './switch-support.ts';

async function refuses(
  project: TestProject,
  argv: readonly string[],
  expected: { code: string; text: RegExp },
) {
  const before = await project.snapshot();
  const outcome = await switchTo(project, [...argv, '--json']);
  assert.notEqual(outcome.code, 0, 'it was refused');
  const { code, message } = outcome.json().error as { code: string; message: string };
  assert.equal(code, expected.code, message);
  assert.match(message, expected.text);
  await verifyUnchanged(project, before, '1.0.0');
  return outcome;
}

test('switching between environments and versions', async (t) => {
  const project = await runningProject(t);

  await t.test('the environments take over from each other and no client finds neither', async (t) => {
    await t.test('prod → dev → prod', async () => {
      for (const target of ['dev', 'prod'] as const) {
        const outcome = (await mustSwitch(project, target, '--json')).json();
        assert.equal(outcome.active, target);
        assert.equal((outcome.gaps as Record<string, number>).any, 0);
        assert.equal((await answerOf(project, target)).env, target);
      }
      const other = await docker('inspect', '--format', '{{.State.Status}}', `${project.name}-dev`);
      assert.equal(other, 'exited');
    });

    await t.test('a second run has nothing to do', async () => {
      const before = await project.snapshot();
      const outcome = await mustSwitch(project, 'prod', '--json');
      assert.equal(outcome.json().changed, false);
      assert.deepEqual(await project.snapshot(), before);
    });

    await t.test('a dry run prints every command and changes nothing', async () => {
      const before = await project.snapshot();
      const outcome = await mustSwitch(project, 'prod', '--version', 'v1.0.1', '--dry-run');
      assert.match(outcome.stderr, /would run: docker compose .* up --no-start/);
      assert.match(outcome.stderr, /would run: docker stop/);
      assert.deepEqual(await project.snapshot(), before);
    });

    await t.test('prod gets a new version under its own name, and previous goes back', async () => {
      const outcome = (await mustSwitch(project, 'prod', '--version', 'latest-release', '--json')).json();
      assert.ok((outcome.gaps as Record<string, number>).prod! > 0, 'the gap was measured');
      assert.equal((await answerOf(project, 'prod')).version, '1.0.1');
      const containers = await docker(
        'ps',
        '-a',
        '--filter',
        `name=${project.name}-prod`,
        '--format',
        '{{.Names}}',
      );
      assert.equal(containers, `${project.name}-prod`, 'the replaced container is gone');
      const policy = await docker(
        'inspect',
        '--format',
        '{{.HostConfig.RestartPolicy.Name}}',
        `${project.name}-prod`,
      );
      assert.equal(policy, 'always');
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

    await t.test('compose by hand sees one container of each service', async () => {
      const format = ['ps', '--all', '--format', '{{.Service}} {{.Name}} {{.State}}'];
      assert.equal(
        await docker('compose', '--project-name', project.name, ...format),
        `tiny-dev ${project.name}-dev exited\ntiny-prod ${project.name}-prod running`,
      );
    });
  });

  await t.test('a version that does not work never takes prod away', async (t) => {
    const cases: [Behaviour, { code: string; text: RegExp }][] = [
      ['unhealthy', { code: 'unhealthy', text: /Cannot start prod: .*answered 404, expected 200/ }],
      [
        'crash',
        {
          code: 'unhealthy',
          text: /^Cannot start prod: container exited with code 3: .*cannot start, as asked\nLast log lines:(\n {4}.*){1,5}$/,
        },
      ],
      ['wrong-version', { code: 'unhealthy', text: /reports version "9\.9\.9", expected "2\.0\.\d"/ }],
    ];
    for (const [index, [behaviour, expected]] of cases.entries()) {
      await t.test(behaviour, async () => {
        await releaseTiny(project, `v2.0.${index}`, behaviour);
        await refuses(project, ['prod', '--version', `v2.0.${index}`, '--wait', '2'], expected);
      });
    }

    await t.test('an image that somebody re-tagged', async () => {
      await releaseTiny(project, 'v2.1.0');
      await docker('tag', `${project.name}:latest`, `${project.name}:v2.1.0`);
      await refuses(project, ['prod', '--version', 'v2.1.0'], {
        code: 'image-changed',
        text: /is not the released one/,
      });
    });

    await t.test('dev that crashes leaves prod alone', async () => {
      await buildTiny(project, 'latest', 'crash');
      await refuses(project, ['dev'], {
        code: 'unhealthy',
        text: /^Cannot start dev: container exited with code 3: /,
      });
      await buildTiny(project, 'latest', 'ok');
    });

    await t.test('two problems are reported together: port taken and no such release', async (st) => {
      const holder = spawn(process.execPath, [
        '-e',
        `require('net').createServer().listen(${project.ports.dev}, '127.0.0.1', () => console.log('up'))`,
      ]);
      st.after(() => holder.kill());
      await once(holder.stdout, 'data');
      const outcome = await refuses(project, ['both', '--version', 'v7.7.7'], {
        code: 'not-released',
        text: /v7\.7\.7 is not a release/,
      });
      assert.match(
        outcome.stderr,
        new RegExp(`Port ${project.ports.dev}, which dev needs, is taken by node \\(pid ${holder.pid}\\)`),
      );
    });

    await t.test('a port that a container has', async (st) => {
      const name = `${project.name}-holder`;
      st.after(() => docker('rm', '--force', name));
      const image = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
      await docker(
        'run',
        '--detach',
        '--name',
        name,
        '--publish',
        `127.0.0.1:${project.ports.dev}:1`,
        image,
        'sleep',
        '60',
      );
      await refuses(project, ['dev'], {
        code: 'port-taken',
        text: new RegExp(`taken by the container ${name}`),
      });
    });
  });

  await t.test(
    'Ctrl-C while prod is being replaced: the old version answers again, exit code 130',
    async (t) => {
      await releaseTiny(project, 'v3.0.0', 'unhealthy');
      const before = await project.snapshot();
      const { PATH, folder } = await fakeDocker(t, `case "$1" in start) touch "$here/started";; esac`);
      let pid = 0;
      const running = switchTo(project, ['prod', '--version', 'v3.0.0'], {
        env: { PATH },
        onStart: (id) => (pid = id),
      });
      while (!(await stat(`${folder}/started`).catch(() => undefined)))
        await new Promise((resolve) => setTimeout(resolve, 20));
      process.kill(pid, 'SIGINT');
      const outcome = await running;
      assert.equal(outcome.code, 130, outcome.stderr);
      await verifyUnchanged(project, before, '1.0.0');
    },
  );

  await t.test('two switches at once: one is refused and the other one is whole', async () => {
    const both = await Promise.all([
      switchTo(project, ['prod', '--version', 'v1.0.1', '--json']),
      switchTo(project, ['dev', '--json']),
    ]);
    assert.deepEqual(both.map(({ code }) => code).sort(), [0, 1]);
    const refused = both.find(({ code }) => code === 1)!;
    assert.equal((refused.json().error as { code: string }).code, 'locked');
    const winner = both.find(({ code }) => code === 0)!.json().active as 'dev' | 'prod';
    assert.equal((await answerOf(project, winner)).env, winner);
    assert.match(await project.read('.env'), new RegExp(`TINY_ACTIVE_ENV=${winner}`));
  });
});
