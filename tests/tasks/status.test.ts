// Status on the real engine, in every situation that it must tell apart. What would be lost: somebody believes that
// prod runs what was released, and well, while it does not.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { withLock } from '../../tasks/lib/lock.ts';
import type { StatusReport } from '../../tasks/lib/status/report.ts';
import { docker } from './processes.ts';
import { START, tinyProject } from './project.ts';
import { isUnhealthy, replaceContainer, waitForContainer } from './status-containers.ts';
import { buildTiny, fakeDocker } from './switch-support.ts';

type Report = StatusReport & { ok: boolean; error?: { code: string } };
const NO_ENGINE = { DOCKER_HOST: 'unix:///nowhere/docker.sock' };

test('status, on the real engine', async (t) => {
  const project = await tinyProject(t);
  await project.edit('configs/release.toml', (text) =>
    text.replace('revision = "revision"', 'revision = "revision"\nconfig = { env = "environment" }'),
  );
  await project.commit('build: tell the environment');
  const status = async (argv: string[] = [], env: Record<string, string> = {}) => {
    const outcome = await project.task('status', ['--json', ...argv], { env });
    return { ...outcome, report: outcome.json() as unknown as Report };
  };
  const codes = ({ problems }: Report) => problems.map(({ code }) => code);
  const done = async (name: string, ...argv: string[]) => {
    const { code, stderr } = await project.task(name, [...argv, '--yes', '--json']);
    assert.equal(code, 0, stderr);
  };
  const [dev, prod] = [`${project.name}-dev`, `${project.name}-prod`];
  const samples = async () =>
    (await project.read('.synapse/samples.jsonl'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
  const startedAt = (name: string) => docker('inspect', '--format', '{{.State.StartedAt}}', name);

  await t.test('before anything was released: nothing runs, nothing is wrong', async () => {
    const { code, report, stderr } = await status();
    assert.equal(code, 0, stderr);
    assert.deepEqual(
      [report.active, report.environments.prod.health, report.lastSwitch],
      ['none', 'absent', null],
    );
  });

  await done('release', 'patch');
  await done('switch-env', 'both');

  await t.test(
    'both healthy: all is reported, with at most four calls of docker, and nothing changes',
    async (s) => {
      const { PATH, folder } = await fakeDocker(s, 'echo "$*" >> "$here/calls"');
      const before = await project.snapshot();
      const { code, report, stderr } = await status([], { PATH });
      assert.equal(code, 0, stderr);
      assert.deepEqual(await project.snapshot(), before);
      const made = (await readFile(join(folder, 'calls'), 'utf8')).trim().split('\n');
      assert.ok(made.length <= 4, made.join('\n'));

      const common = {
        ...{
          health: 'healthy',
          active: true,
          version: '1.0.0',
          releasedAs: 'v1.0.0',
          restarts: 0,
          dirty: false,
        },
        revision: await project.git('rev-parse', 'v1.0.0^{commit}'),
        digest: await docker('image', 'inspect', '--format', '{{.Id}}', `${project.name}:v1.0.0`),
      };
      for (const name of ['dev', 'prod'] as const) {
        const found = report.environments[name];
        const expected = { ...common, port: project.ports[name], config: { environment: name } };
        assert.deepEqual({ ...found, ...expected }, found, name);
        assert.ok(found.memory && found.memory.bytes > 2 ** 14 && found.memory.limit === null);
        assert.ok(found.uptimeSeconds !== null && found.uptimeSeconds < 600);
        assert.ok(found.cpuPercent !== null && found.cpuPercent >= 0);
      }
      const { lastSwitch, measures } = report;
      assert.deepEqual([lastSwitch?.to, lastSwitch?.prod, lastSwitch?.outcome], ['both', 'v1.0.0', 'done']);
      assert.ok(Object.keys(lastSwitch?.phases ?? {}).length > 0);
      const reached = Object.fromEntries(measures.map((one) => [one.id, one.reached]));
      assert.deepEqual(reached, { switch: true, deploy: true, memory: true, uptime: null });
      const text = await project.task('status');
      assert.match(text.stdout, /prod\s+healthy\s+1\.0\.0[\s\S]*released as v1\.0\.0/);
    },
  );

  await t.test(
    'engine down: says so, exit 1, one valid JSON object with what is known without it',
    async () => {
      const { code, report, stderr } = await status([], NO_ENGINE);
      assert.equal(code, 1, stderr);
      assert.deepEqual([report.ok, report.engine.running, codes(report)], [false, false, ['engine-down']]);
      assert.deepEqual([report.environments.prod.health, report.environments.prod.active], ['unknown', true]);
      assert.equal(report.lastSwitch?.to, 'both');
      const text = await project.task('status', [], { env: NO_ENGINE });
      assert.equal(text.code, 1);
      assert.match(text.stdout, /No Docker engine answers[\s\S]*hint: .*DOCKER_HOST/);
    },
  );

  await t.test('samples: up, stopped, without an engine; each is one line', async () => {
    const first = await status(['--record']);
    assert.equal(first.code, 0, first.stderr);
    await docker('stop', '--time', '2', prod);
    const second = await status(['--record']);
    assert.equal(second.code, 1);
    const third = await status(['--record'], NO_ENGINE);
    assert.equal(third.code, 1);
    const found = await samples();
    assert.deepEqual(
      found.map(({ prod: state }) => state),
      ['up', 'down', 'down'],
    );
    assert.ok(found[0].memory.prod > 2 ** 14);
    assert.match(found[1].why, /exited/);
    assert.match(found[2].why, /No Docker engine answers/);
    assert.equal((await stat(join(project.root, '.synapse/samples.jsonl'))).mode & 0o777, 0o600);
    const dry = await project.task('status', ['--record', '--dry-run']);
    assert.match(dry.stderr, /would append/);
    assert.equal((await samples()).length, 3, 'a dry run records nothing');
  });

  await t.test('prod stopped: exit 1, and how to start it', async () => {
    const { code, report } = await status();
    assert.equal(code, 1);
    assert.deepEqual([report.environments.prod.health, codes(report)], ['stopped', ['not-running']]);
    assert.match(report.problems[0]!.hint, /npm run switch/);
    assert.equal(report.environments.dev.health, 'healthy');
    const uptime = report.measures.find(({ id }) => id === 'uptime')!;
    assert.ok(uptime.value !== null && uptime.value < 1, 'the samples count');
  });

  await t.test('--heal never interferes with a task at work', async () => {
    const healing = await withLock(project.root, 'restore', () =>
      // Not as a part of this process's own task.
      project.task('status', ['--record', '--heal', '--json'], { env: { RELEASE_FLOW_RUN: undefined } }),
    );
    assert.equal(await docker('inspect', '--format', '{{.State.Status}}', prod), 'exited');
    assert.match(healing.stdout, /restore runs since/);
  });

  await t.test(
    'one unhealthy, and not the released image; --heal restarts it once, not in a loop',
    async () => {
      await buildTiny(project, 'theirs', 'ok');
      await replaceContainer(project, 'prod', { illness: 'unhealthy', image: `${project.name}:theirs` });
      await waitForContainer(prod, isUnhealthy);
      const { code, report } = await status();
      assert.equal(code, 1);
      assert.equal(report.environments.prod.health, 'unhealthy');
      assert.deepEqual(codes(report), ['unhealthy', 'not-released', 'other-release']);
      assert.match(report.problems[0]!.message, /answers 404/);

      // It will not get well: no need to wait long for that.
      const patient = await project.read('configs/release.toml');
      await project.write(
        'configs/release.toml',
        patient.replaceAll(/start_timeout = \d+/g, 'start_timeout = 2'),
      );
      await project.write('.synapse/samples.jsonl', '');
      const began = await startedAt(prod);
      const first = await project.task('status', ['--record', '--heal', '--json']);
      assert.equal(first.code, 1, 'it is still unhealthy afterwards, and says so');
      assert.equal((first.json().error as { code: string }).code, 'not-healed');
      const restarted = await startedAt(prod);
      assert.notEqual(restarted, began, 'it was restarted');
      await waitForContainer(prod, isUnhealthy);
      for (let again = 0; again < 2; again += 1) {
        const next = await project.task('status', ['--record', '--heal', '--json']);
        assert.match(next.json().healing as string, /has not been healthy since/);
      }
      assert.equal(await startedAt(prod), restarted, 'and only once');
      assert.deepEqual(
        (await samples()).map(({ healed }) => healed ?? false),
        [true, false, false],
      );
      assert.match(await project.read('.synapse/history.jsonl'), /"task":"heal"/);
      await project.write('configs/release.toml', patient);
    },
  );

  await t.test('--heal cures what a restart can cure, and records that', async () => {
    await project.write('.synapse/samples.jsonl', '');
    await replaceContainer(project, 'prod', { illness: 'once' });
    await waitForContainer(prod, isUnhealthy);
    const { code, stdout, stderr } = await project.task('status', ['--record', '--heal', '--json']);
    assert.equal(code, 1, stderr);
    const { sample, healing } = JSON.parse(stdout) as { sample: { healed: boolean }; healing: string };
    assert.equal(sample.healed, true);
    assert.match(healing, /^restarted /);
    const after = await project.task('status', ['--record', '--heal', '--json']);
    assert.deepEqual([after.code, after.json().healing], [0, null]);
  });

  await t.test('crash-looping: told apart from stopped', async () => {
    await replaceContainer(project, 'dev', { illness: 'crash' });
    // Three restarts in a minute are a loop also at a moment when the container happens to run.
    await waitForContainer(dev, ({ RestartCount }) => RestartCount >= 3);
    const { code, report } = await status();
    assert.equal(code, 1);
    assert.equal(report.environments.dev.health, 'crash-looping');
    assert.ok(codes(report).includes('crash-looping'));
    assert.match(report.problems[0]!.hint, new RegExp(`docker logs --tail 50 ${dev}`));
    await docker('rm', '--force', dev);
  });

  await t.test('a dirty build in dev is a note; a re-tagged image in prod is a problem', async () => {
    await docker('rm', '--force', prod);
    await project.write('behaviour', 'ok\n\n');
    await done('build-push', 'latest');
    await done('switch-env', 'both');
    const dirty = await status();
    assert.equal(dirty.code, 0, dirty.stderr);
    assert.deepEqual(
      [dirty.report.environments.dev.dirty, dirty.report.environments.dev.releasedAs],
      [true, null],
    );
    assert.match(dirty.report.notes.join(), /uncommitted changes/);
    assert.equal(dirty.report.environments.prod.dirty, false);

    await docker('image', 'tag', `${project.name}:latest`, `${project.name}:v1.0.0`);
    await docker('rm', '--force', prod);
    await replaceContainer(project, 'prod', { illness: 'once' });
    const { code, report } = await status();
    assert.equal(code, 1);
    assert.ok(codes(report).includes('not-released'), codes(report).join());
    assert.equal(report.environments.prod.releasedAs, null);
  });

  await t.test('--watch shows it again and ends with the last answer', async () => {
    const watching = spawn(process.execPath, [START, 'status', '--watch'], {
      cwd: project.root,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let shown = '';
    watching.stdout.on('data', (chunk: Buffer) => {
      shown += chunk;
      if ((shown.match(/: active both/g) ?? []).length >= 2) watching.kill('SIGINT');
    });
    const code = await new Promise((resolve) => watching.on('close', resolve));
    assert.equal(code, 1, 'as the last answer was');
  });

  const refused: [argv: string[], message: RegExp][] = [
    [['--watch', '--json'], /--watch cannot be combined with --json/],
    [['--heal'], /--heal needs --record/],
    [['--html', '/nope/x.html'], /cannot write the page \/nope\/x\.html: \/nope is not a directory/],
    [['--html', '.'], /cannot write the page \.: expected the name of a file/],
    [['--context', 'nope'], /nope/],
  ];
  for (const [argv, message] of refused) {
    await t.test(`${argv.join(' ')} is refused`, async () => {
      const { code, stderr } = await project.task('status', argv);
      assert.equal(code, 2, stderr);
      assert.match(stderr, message);
    });
  }
});
