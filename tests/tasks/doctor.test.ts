// Each check of the doctor, broken on purpose once, on the real engine: it must name what is wrong, with its remedy,
// and nothing that is not. What would be lost: a machine that is called fit and is not.
import assert from 'node:assert/strict';
import { chmod, chown, mkdir, readFile, rename, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Examined } from '../../tasks/lib/doctor/check.ts';
import { docker } from './processes.ts';
import { freePorts, REPOSITORY, tinyProject } from './project.ts';
import { isUnhealthy, replaceContainer, waitForContainer } from './status-containers.ts';
import { fakeDocker } from './switch-support.ts';

const BASE = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
const SECRET = 'hunter2-correct-horse';

/** Breaks something; returns how it is repaired. */
type Break = () => Promise<() => unknown>;
/** Check → what it must say. */
type Expected = Record<string, [detail: RegExp, remedy: RegExp]>;

test('doctor, on the real engine', async (t) => {
  const project = await tinyProject(t);
  const data = join(project.root, 'data');
  await mkdir(data, { mode: 0o700 });
  await chown(data, 1000, 1000);
  await project.edit('.gitignore', (text) => `${text}data/\n`);
  await project.commit('build: keep the data out of git');
  const dotenv = join(project.root, '.env');
  await chmod(dotenv, 0o600);

  const doctor = async (env: Record<string, string> = {}) => {
    const outcome = await project.task('doctor', ['--json'], { env });
    const { ok, checks } = outcome.json() as { ok: boolean; checks: Examined[] };
    const finding = (id: string) => checks.find((one) => one.id === id)!;
    return { ...outcome, ok, checks, finding, failing: checks.filter(({ verdict }) => verdict === 'failed') };
  };
  /** Exactly these checks fail, and each says and advises this. */
  const expectFailures = async (expected: Expected, env: Record<string, string> = {}) => {
    const found = await doctor(env);
    const failing = found.failing.map(({ id }) => id).sort();
    assert.deepEqual(failing, Object.keys(expected).sort(), JSON.stringify(found.failing, null, 1));
    assert.deepEqual([found.code, found.ok], [1, false]);
    for (const [id, [detail, remedy]] of Object.entries(expected)) {
      assert.match(found.finding(id).detail, detail);
      assert.match(found.finding(id).remedy ?? '', remedy);
    }
    assert.ok(!`${found.stdout}${found.stderr}`.includes(SECRET), 'the place is shown, never the value');
    return found;
  };
  const done = async (name: string, ...argv: string[]) => {
    const { code, stderr } = await project.task(name, [...argv, '--yes', '--json']);
    assert.equal(code, 0, stderr);
  };
  const image = (tag: string) => `${project.name}:${tag}`;
  const good = await project.read('.env');
  await done('release', 'patch');
  await done('switch-env', 'both');
  // Of before these tasks: history, not a mistake.
  await project.git('tag', 'v0.1.0', 'HEAD~1');

  await t.test('a fit machine: nothing fails, nothing is changed', async () => {
    const before = await project.snapshot();
    const { code, ok, failing, checks } = await doctor();
    assert.deepEqual([code, ok, failing], [0, true, []]);
    assert.deepEqual(await project.snapshot(), before);
    const unchecked = checks.filter(({ verdict }) => verdict === 'unchecked').map(({ id }) => id);
    assert.deepEqual(unchecked, ['service-config'], 'what does not apply is not called well');
  });

  await t.test('prod is unhealthy, then gone', async () => {
    const health: Expected = { health: [/^prod is active, but not healthy$/, /npm run status/] };
    await waitForContainer(await replaceContainer(project, 'prod', { illness: 'unhealthy' }), isUnhealthy);
    await expectFailures(health);
    await docker('rm', '--force', `${project.name}-prod`);
    await expectFailures(health);
    await done('switch-env', 'both');
  });

  await t.test('stopped engine: its own check fails; what needs it is not called well', async () => {
    const { finding } = await expectFailures(
      { engine: [/No Docker engine answers/, /DOCKER_HOST|start Docker/] },
      { DOCKER_HOST: 'unix:///nowhere/docker.sock' },
    );
    for (const id of ['memory-limits', 'architecture', 'releases', 'leftovers'])
      assert.equal(finding(id).verdict, 'unchecked', id);
    assert.equal(finding('dotenv').verdict, 'ok', 'what needs no engine is still checked');
  });

  const write =
    (path: string, change: (text: string) => string): Break =>
    async () => {
      const before = await project.read(path).catch(() => undefined);
      await project.write(path, change(before ?? ''));
      return () => (before === undefined ? rm(join(project.root, path)) : project.write(path, before));
    };
  const set = (name: string, value: string | number) =>
    write('.env', (text) => `${text.replace(new RegExp(`^${name}=.*\n`, 'm'), '')}${name}=${value}\n`);
  const engine =
    (breaks: string[], ...repairs: string[][]): Break =>
    async () => {
      await docker(...breaks);
      return async () => {
        for (const repair of repairs) await docker(...repair);
      };
    };
  const changed =
    <Value>(change: (value: Value) => Promise<void>, broken: Value, whole: Value): Break =>
    async () => {
      await change(broken);
      return () => change(whole);
    };
  const mode = (path: string, broken: number, whole: number) =>
    changed((value) => chmod(path, value), broken, whole);
  const allOf =
    (...breaks: Break[]): Break =>
    async () => {
      const repairs: (() => unknown)[] = [];
      for (const one of breaks) repairs.unshift(await one());
      return async () => {
        for (const repair of repairs) await repair();
      };
    };
  /** A commit or tag in git that is taken back by moving the refs to where they were. */
  const git =
    (...argv: string[][]): Break =>
    async () => {
      const [head = '', tag = ''] = (await project.git('rev-parse', 'HEAD', 'refs/tags/v1.0.0')).split('\n');
      for (const one of argv) await project.git(...one).catch(() => {});
      return async () => {
        await project.git('reset', '--quiet', '--hard', head);
        await project.git('update-ref', 'refs/tags/v1.0.0', tag);
      };
    };
  /** The released image under another name, while its own is gone. */
  const kept = (broken: string[]) =>
    allOf(
      engine(['tag', image('v1.0.0'), image('kept')], ['rmi', image('kept')]),
      engine(broken, ['tag', image('kept'), image('v1.0.0')]),
    );
  const message = (await project.git('cat-file', 'tag', 'v1.0.0')).split('\n\n').slice(1).join('\n\n');
  const taken = await docker('network', 'inspect', '--format', '{{(index .IPAM.Config 0).Subnet}}', 'bridge');
  const left = `${project.name}-candidate-dead`;
  const label = `--label=release-flow.candidate=${project.name}`;
  const other = `${project.name}-other`;
  t.after(() => docker('rm', '--force', other, left).catch(() => {}));
  const [free = 0, listening = 0] = await freePorts(2);
  const holder = createServer().listen(listening, '127.0.0.1');
  t.after(() => holder.close());
  const publish = [`--publish=127.0.0.1:${free}:8002`, '--entrypoint=sleep', BASE, '600'];
  const container = engine(['run', '--detach', `--name=${other}`, ...publish], ['rm', '--force', other]);
  const takenBy = (name: string) => new RegExp(`^Port \\d+, which dev needs, is taken by ${name}`);
  const compose = (change: (text: string) => string) => write('compose/docker-compose.yml', change);
  const mount = (text: string) =>
    text.replaceAll(/^( +)init: true/gm, '$1init: true\n$1volumes: ["../other:/data"]');
  const setup = /npm run setup/;

  const rows: [what: string, broken: Break, expected: Expected, fake?: string][] = [
    [
      'a port of another program',
      set('TINY_DEV_PORT', listening),
      { ports: [takenBy('node'), /TINY_DEV_PORT=/] },
    ],
    [
      'a port of another container',
      allOf(container, set('TINY_DEV_PORT', free)),
      { ports: [takenBy(`the container ${other}`), /TINY_DEV_PORT=/] },
    ],
    [
      'a subnet that Docker uses',
      set('TINY_SUBNET', taken),
      { subnet: [new RegExp(`${taken} overlaps the Docker network bridge`), /TINY_SUBNET=/] },
    ],
    [
      'a secret in a configuration file',
      write('configs/mail.json', () => `{\n  "smtp_password": "${SECRET}"\n}\n`),
      { secrets: [/configs\/mail\.json:2 gives smtp_password a value/, /move it to \.env/] },
    ],
    [
      '.env for all to read',
      mode(dotenv, 0o644, 0o600),
      { dotenv: [/mode 0644, expected 0600/, /chmod 0600 \.env/] },
    ],
    [
      '.env not ignored',
      write('.gitignore', () => 'data/\n.synapse/\n'),
      { dotenv: [/git does not ignore \.env/, /\.gitignore/] },
    ],
    [
      'data of another owner',
      allOf(
        set('TINY_UID', 1000),
        set('TINY_GID', 1000),
        changed((id) => chown(data, id, id), 4242, 1000),
      ),
      { 'data-directory': [/belongs to 4242:4242, the containers run as 1000:1000/, setup] },
    ],
    [
      'data for all to read',
      mode(data, 0o755, 0o700),
      { 'data-directory': [/mode 0755, expected 0700/, setup] },
    ],
    [
      'data in memory, not there',
      set('TINY_DATA_DIR', `/dev/shm/${project.name}`),
      {
        'data-directory': [/does not exist/, setup],
        'file-system': [/tmpfs: it is in memory/, /TINY_DATA_DIR/],
      },
    ],
    [
      'data that is not what prod writes to',
      compose(mount),
      {
        'data-directory': [
          /Prod does not mount the data directory/,
          /\[data\] directory in configs\/release\.toml/,
        ],
      },
    ],
    [
      'a container of a dead release',
      engine(['create', `--name=${left}`, label, BASE, 'true'], ['rm', left]),
      { leftovers: [new RegExp(`container ${left}`), new RegExp(`docker rm --force --volumes ${left}`)] },
    ],
    [
      'an image of a dead build',
      engine(['tag', BASE, image('candidate-dead')], ['rmi', image('candidate-dead')]),
      { leftovers: [/image .*:candidate-dead/, /docker image rm .*:candidate-dead/] },
    ],
    [
      'a file of a dead task',
      write('configs/.release.toml.0a1b.partial', () => ''),
      { leftovers: [/\.release\.toml\.0a1b\.partial/, /^rm -r .*\.partial$/] },
    ],
    [
      'old Compose',
      allOf(),
      { compose: [/version 2\.20\.3, expected 2\.24\.0 or newer/, setup] },
      'case "$*" in "compose version"*) echo 2.20.3; exit;; esac',
    ],
    ['no Buildx', allOf(), { buildx: [/not installed/, setup] }, '[ "$*" = "buildx version" ] && exit 1'],
    [
      'a compose file that is not valid',
      compose((text) => text.replace('restart: always', 'restart: [always]')),
      { 'compose-config': [/compose file is not valid/, /docker-compose\.yml/] },
    ],
    [
      'a tag that was moved',
      git(
        ['commit', '--quiet', '--allow-empty', '-m', 'feat: where the tag is moved to'],
        ['tag', '--force', '--annotate', 'v1.0.0', '-m', message],
      ),
      { releases: [/git tag v1\.0\.0 was moved/, /git fetch --tags/] },
    ],
    [
      'a tag that was set by hand',
      git(['tag', '--force', 'v1.0.0', 'HEAD']),
      { releases: [/git tag v1\.0\.0 is not the release's/, /git fetch --tags --force/] },
    ],
    [
      'a tag that is gone',
      git(['tag', '--delete', 'v1.0.0']),
      { releases: [/entry for v1\.0\.0, git has no such tag/, /git fetch --tags/] },
    ],
    [
      'notes without a release',
      write('release-notes.md', () => '# Release notes\n'),
      { releases: [/no entry for v1\.0\.0/, /git show v1\.0\.0/] },
    ],
    [
      'an image without a tag',
      engine(['tag', image('v1.0.0'), image('v7.0.0')], ['rmi', image('v7.0.0')]),
      { releases: [/image .*:v7\.0\.0 has no git tag/, /git fetch --tags/] },
    ],
    [
      'an image that is not the released one',
      kept(['tag', BASE, image('v1.0.0')]),
      { releases: [/v1\.0\.0 is not the released one/, /docker image rm .*npm run build-push -- v1\.0\.0/] },
    ],
    [
      'an image that was pruned',
      allOf(kept(['rmi', image('v1.0.0')]), set('TINY_PROD_TAG', 'v1.0.0')),
      {
        images: [
          /v1\.0\.0, which \.env names for prod, is not on this machine/,
          /npm run build-push -- v1\.0\.0/,
        ],
      },
    ],
    [
      'a merge that waits',
      git(
        ['switch', '--quiet', '--create', 'side'],
        ['commit', '--quiet', '--allow-empty', '-m', 'feat: side'],
        ['switch', '--quiet', 'main'],
        ['merge', '--no-commit', '--no-ff', 'side'],
      ),
      { git: [/a merge is not finished/, /git merge --abort/] },
    ],
  ];
  await project.write('.env', good);
  for (const [what, broken, expected, fake] of rows) {
    await t.test(what, async (s) => {
      const { PATH = process.env.PATH ?? '' } = fake ? await fakeDocker(s, fake) : {};
      const repair = await broken();
      await expectFailures(expected, { PATH }).finally(repair);
    });
  }

  await t.test('.env that cannot be read: what it decides is not guessed', async () => {
    await rename(dotenv, `${dotenv}.kept`);
    await mkdir(dotenv);
    const { finding } = await expectFailures({ dotenv: [/\.env is not a file/, setup] });
    assert.equal(finding('ports').verdict, 'unchecked');
    const status = await project.task('status', ['--json']);
    assert.deepEqual([status.code, (status.json().error as { code: string }).code], [2, 'dotenv-unreadable']);
    await rm(dotenv, { recursive: true });
    await rename(`${dotenv}.kept`, dotenv);
  });

  await t.test('a release that was killed, seen from another branch; run again, all is well', async () => {
    await project.commit('feat: more', { note: 'more\n' });
    const env = { RELEASE_FLOW_FAULT: 'SIGKILL@release/refs' };
    assert.equal((await project.task('release', ['minor', '--yes'], { env })).code, 137);
    await project.git('switch', '--quiet', 'side');
    const { finding } = await expectFailures({
      interrupted: [/release was interrupted .* at "/, /npm run release/],
    });
    assert.equal(finding('leftovers').verdict, 'unchecked', 'what the release will resume with');
    assert.equal(finding('git').verdict, 'warning');
    assert.match(finding('git').detail, /releases come from main/);
    await project.git('switch', '--quiet', 'main');
    await done('release', 'minor');
    assert.deepEqual((await doctor()).failing, []);
  });

  await t.test('--config: every value with its layer; a wrong one is refused', async () => {
    for (const name of ['synapse.json', 'synapse_dev.json'])
      await project.write(`configs/${name}`, await readFile(join(REPOSITORY, 'configs', name), 'utf8'));
    await project.edit('configs/release.toml', (text) =>
      text.replace('service = "tiny-dev"', 'service = "tiny-dev"\nconfig = "configs/synapse_dev.json"'),
    );
    const shown = await project.task('doctor', ['--config', 'dev', '--json']);
    assert.equal(shown.code, 0, shown.stderr);
    const { values } = shown.json() as { values: { path: string; value: unknown; origin: string }[] };
    const found = (path: string) => values.find((one) => one.path === path);
    const { value, origin } = found('log.level')!;
    assert.deepEqual([value, origin], ['DEBUG', 'configs/synapse_dev.json']);
    assert.equal(found('server.port')?.origin, 'configs/synapse.json');
    assert.equal((await project.task('doctor', ['--config', 'prod'])).code, 2, 'prod names none');
    assert.equal((await project.task('doctor', ['--config', 'staging'])).code, 2);

    await project.write('configs/synapse_dev.json', '{ "log": { "levle": "DEBUG" } }');
    await expectFailures({ 'service-config': [/levle/, /repair configs\/synapse_dev\.json/] });
  });
});
