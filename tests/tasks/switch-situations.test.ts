// What people and prunes do between two switches: networks that are gone, compose by hand, a second checkout, services
// that others depend on. Each leads to a switch that works, or to a refusal that says what to do.
import assert from 'node:assert/strict';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { docker, runProcess } from './processes.ts';
import { START, type TestProject, tinyProject } from './project.ts';
import { errorOf, released } from './release-support.ts';
import {
  answerOf,
  fakeDocker,
  inspect,
  mustSwitch,
  refuses,
  runningProject,
  switchTo,
  verifyUnchanged,
} from './switch-support.ts';

const ofProject = ({ name }: TestProject) => `label=com.docker.compose.project=${name}`;

/** The same project in another folder. */
async function otherCheckout(t: TestContext, project: TestProject) {
  const root = join(project.directory, 'other');
  t.after(() => rm(root, { recursive: true, force: true }));
  await cp(project.root, root, { recursive: true });
  const env = { ...project.environment };
  return (...argv: string[]) =>
    runProcess(process.execPath, [START, 'switch-env', ...argv, '--yes', '--json'], { cwd: root, env });
}

/** As a person types it: by compose's own files and the project's .env. */
function byHand(project: TestProject, file: string, ...argv: string[]) {
  const flags = ['--project-name', project.name, '--env-file', join(project.root, '.env'), '--file', file];
  return runProcess('docker', ['compose', ...flags, ...argv], { env: { TINY_IMAGE: project.name } });
}

test('what was chosen, stopped, pruned or made by hand', async (t) => {
  const project = await runningProject(t);
  const prod = `${project.name}-prod`;
  const file = join(project.root, 'compose/docker-compose.yml');

  await t.test('its network is pruned while it is stopped: it is made again', async () => {
    await mustSwitch(project, 'none');
    assert.equal(await inspect(prod, '{{.HostConfig.RestartPolicy.Name}}'), 'no');
    await docker('network', 'prune', '--force', '--filter', ofProject(project));
    await mustSwitch(project, 'prod');
    assert.equal((await answerOf(project, 'prod')).version, '1.0.0');
    assert.equal(await inspect(prod, '{{.HostConfig.RestartPolicy.Name}}'), 'always');
  });

  await t.test('its network is pruned in the middle of a switch: the next one leads out', async () => {
    const env = { RELEASE_FLOW_FAULT: 'SIGKILL@switch/retire-prod/applied' };
    assert.equal((await switchTo(project, ['prod', '--version', 'v1.0.1'], { env })).code, 137);
    await docker('network', 'prune', '--force', '--filter', ofProject(project));
    await mustSwitch(project, 'prod', '--version', 'v1.0.0');
    assert.equal((await answerOf(project, 'prod')).version, '1.0.0');
  });

  await t.test('compose by hand with the same configuration is up to date', async () => {
    const up = await byHand(project, file, 'up', '--detach', '--force-recreate', 'tiny-prod');
    assert.equal(up.code, 0, up.stderr);
    await answerOf(project, 'prod');
    const outcome = await mustSwitch(project, 'prod', '--json');
    assert.equal(outcome.json().changed, false, outcome.stderr);
  });

  await t.test('compose by hand with another one is named as the reason', async () => {
    await project.edit('compose/docker-compose.yml', (text) =>
      text.replaceAll('APP_ENV: prod', 'APP_ENV: prod, X: y'),
    );
    const outcome = await mustSwitch(project, 'prod');
    assert.match(outcome.stderr, /replace prod: somebody ran docker compose with another configuration/);
  });

  await t.test("compose needs no flags in the project's folder, once it was set up", async () => {
    const setup = await project.task('setup', ['--yes']);
    assert.equal(setup.code, 0, setup.stderr);
    const list = ['compose', 'ps', '--format', '{{.Name}}'];
    const { stdout, stderr } = await runProcess('docker', list, { cwd: project.root });
    assert.equal(stdout.trim(), prod, stderr);
  });

  await t.test("another checkout's switch is refused, and changes nothing", async (s) => {
    const there = await otherCheckout(s, project);
    const before = await project.snapshot();
    const outcome = await there('dev');
    assert.equal(errorOf(outcome).code, 'other-checkout', outcome.stderr);
    assert.match(errorOf(outcome).message, new RegExp(`belong to another checkout: ${project.root}`));
    await verifyUnchanged(project, before, '1.0.0');
  });

  await t.test('what compose made in another checkout is refused, too, until that is gone', async (s) => {
    const there = await otherCheckout(s, project);
    const other = join(project.directory, 'other');
    await docker('rm', '--force', prod);
    await byHand(project, join(other, 'compose/docker-compose.yml'), 'up', '--detach', 'tiny-prod');
    const outcome = await switchTo(project, ['prod', '--json']);
    assert.equal(errorOf(outcome).code, 'other-checkout', outcome.stderr);
    assert.notEqual((await there('status')).code, 1, 'reading is free');
    await rm(other, { recursive: true });
    await mustSwitch(project, 'prod');
  });

  await t.test('two checkouts at once: one switches', async (s) => {
    await mustSwitch(project, 'none');
    await docker('container', 'prune', '--force', '--filter', ofProject(project));
    const there = await otherCheckout(s, project);
    const both = await Promise.all([there('prod'), switchTo(project, ['prod', '--json'])]);
    assert.deepEqual(both.map(({ code }) => code).sort(), [0, 1], both.map(({ stderr }) => stderr).join());
    const { code } = errorOf(both.find((one) => one.code === 1)!);
    assert.ok(['locked', 'other-checkout'].includes(code), code);
    assert.equal((await answerOf(project, 'prod')).env, 'prod');
  });
});

test('what cannot be meant is refused with what was probably meant, and changes nothing', async (t) => {
  const project = await runningProject(t);
  const rows: [words: string, ...expected: Parameters<typeof refuses>[2]][] = [
    ['status --version v1.0.0', 'usage', /^switch: --version is for a switch/, 2],
    ['status --wait 3', 'usage', /--wait is for a switch/, 2],
    ['prod --version latest', 'not-released', /did you mean latest-release/],
    ['prod --version 1.0', 'not-released', /did you mean v1\.0\.1/],
    ['prod --version v1.0.2', 'not-released', /did you mean v1\.0\.[01]/],
    ['prod --context nope', 'usage', /nope/, 2],
    ['prod --engine swarm', 'no-swarm', /docker swarm init/],
    ['status --engine swarm', 'no-swarm', /docker swarm init/],
  ];
  for (const [words, ...expected] of rows)
    await t.test(words, async () => void (await refuses(project, words.split(' '), expected)));

  await t.test('an active environment that is none', async () => {
    const env = await project.read('.env');
    await project.write('.env', env.replace('ACTIVE_ENV=prod', 'ACTIVE_ENV=staging'));
    for (const [task, ...argv] of [
      ['switch-env', 'status'],
      ['switch-env', 'prod', '--yes'],
      ['up', '--yes'],
    ]) {
      const outcome = await project.task(task!, argv);
      assert.equal(outcome.code, 2, outcome.stderr);
      assert.match(outcome.stderr, /TINY_ACTIVE_ENV is "staging", expected dev, prod, both, none/);
    }
    await project.write('.env', env);
  });

  await t.test('ports that the network reaches, without a token', async () => {
    const compose = await project.read('compose/docker-compose.yml');
    const withToken = compose.replaceAll('APP_ENV: dev', `APP_ENV: dev, TINY_TOKEN: "\${TINY_TOKEN:-}"`);
    for (const address of ['0.0.0.0:', '']) {
      await project.write('compose/docker-compose.yml', withToken.replaceAll('"127.0.0.1:', `"${address}`));
      await refuses(project, ['dev'], ['exposed', /TINY_TOKEN=[\s\S]*TINY_BIND_ADDRESS=0\.0\.0\.0/]);
    }
    await project.edit('.env', (text) => `${text}TINY_TOKEN=a-token-of-the-test\n`);
    await mustSwitch(project, 'dev');
  });
});

test('an environment starts with what it depends on, and leaves alone what is up to date', async (t) => {
  const project = await runningProject(t);
  const image = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
  const service = (name: string, command: string, more = '') =>
    `  ${name}:\n    image: ${image}\n    pull_policy: never\n    init: true\n    command: ["sh", "-c", "${command}"]\n${more}`;
  const check =
    '    healthcheck: { test: ["CMD", "true"], interval: 1s, start_period: 5s, start_interval: 300ms }\n';
  const write = (job: string) =>
    project.edit('compose/docker-compose.yml', (text) =>
      text
        .replace(/ {4}depends_on:.*\n/g, '')
        .replace(/ {2}(db|job):\n( {4}.*\n)+/g, '')
        .replaceAll(
          '    init: true\n    healthcheck',
          `    init: true\n    depends_on: { job: { condition: service_completed_successfully }, db: { condition: service_healthy } }\n    healthcheck`,
        )
        .replace(
          '\nnetworks:',
          `\n${service('db', 'sleep 600', check)}${service('job', job, '    depends_on: [db]\n')}\nnetworks:`,
        ),
    );
  const id = (name: string) => docker('ps', '--all', '--quiet', '--filter', `name=${project.name}-${name}-1`);

  await t.test('a job that fails keeps what runs', async () => {
    await write('exit 3');
    await refuses(project, ['prod'], ['dependency', /Cannot start job.*: it exited with code 3/]);
  });

  await t.test('in order, each on its condition', async () => {
    await write('exit 0');
    const outcome = await mustSwitch(project, 'prod');
    assert.match(
      outcome.stderr,
      /start db, which .*depends on\n.*start job, which .*depends on\n.*replace prod/,
    );
    assert.equal(await inspect(`${project.name}-db-1`, '{{.State.Health.Status}}'), 'healthy');
    assert.equal(await inspect(`${project.name}-job-1`, '{{.State.Status}} {{.State.ExitCode}}'), 'exited 0');
  });

  await t.test('left alone when up to date, started again when stopped', async () => {
    const before = [await id('db'), await id('job')];
    await mustSwitch(project, 'both');
    assert.deepEqual([await id('db'), await id('job')], before);
    await docker('stop', '--time', '1', `${project.name}-db-1`);
    await mustSwitch(project, 'both');
    assert.equal(await inspect(`${project.name}-db-1`, '{{.State.Status}}'), 'running');
    assert.deepEqual([await id('db'), await id('job')], before);
  });
});

test('a running dev follows a release that moves latest, if release.toml says so', async (t) => {
  const project = await tinyProject(t);
  const dev = () => inspect(`${project.name}-dev`, '{{.Image}}');
  const release = async (version: string, ...flags: string[]) => {
    await project.commit(`feat: ${version}`, { note: version });
    return (await released(project, version, ...flags)).digest as string;
  };
  await release('1.0.0');
  await mustSwitch(project, 'both', '--version', 'v1.0.0');

  await t.test('replaced, and prod goes on as it was', async () => {
    const digest = await release('1.1.0');
    assert.equal(await dev(), digest);
    assert.equal((await answerOf(project, 'prod')).version, '1.0.0');
  });

  await t.test('kept where it does not follow', async () => {
    await project.edit('configs/release.toml', (text) =>
      text.replace('[environments.dev]', '[environments.dev]\nfollow = false'),
    );
    const before = await dev();
    await release('1.2.0');
    assert.equal(await dev(), before);
    const { notes } = (await project.task('status', ['--json'])).json() as { notes: string[] };
    assert.match(
      notes.join(),
      /dev does not run the current latest image; update it: npm run switch -- both/,
    );
    await release('1.3.0', '--deploy');
    assert.equal(await dev(), before);
    assert.equal((await answerOf(project, 'prod')).version, '1.3.0');
    assert.equal((await mustSwitch(project, 'both', '--json')).json().changed, true, 'dev by its own name');
    assert.notEqual(await dev(), before);
  });
});

test('a release that dev does not start with recommends its undoing, not prod', async (t) => {
  const project = await runningProject(t);
  await mustSwitch(project, 'both', '--version', 'v1.0.0');
  await project.commit('fix: something to release', { note: 'x' });
  const { PATH } = await fakeDocker(t, 'case "$*" in *"up --no-start"*) echo "no room" >&2; exit 1;; esac');
  const { code, stdout, stderr } = await project.task('release', ['patch', '--yes'], { env: { PATH } });
  assert.equal(code, 0, stderr);
  assert.match(stderr, /dev was not switched to the new latest/);
  assert.match(
    stdout,
    /Released v1\.0\.2[\s\S]*Dev does not start with it\. Undo it: {2}npm run release -- --undo v1\.0\.2/,
  );
  assert.doesNotMatch(stdout, /npm run switch/);
});
