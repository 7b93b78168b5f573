// Each check of the doctor, broken on purpose once, on the real engine: it must name what is wrong, with its remedy,
// and nothing that is not. What would be lost: a machine that is called fit and is not.

import assert from 'node:assert/strict';
import { chmod, chown, mkdir, readFile, rename, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Verdict } from '../../tasks/lib/doctor/check.ts';
import { docker } from './processes.ts';
import { REPOSITORY, tinyProject } from './project.ts';
import { fakeDocker, isUnhealthy, replaceContainer, waitForContainer } from './status-containers.ts';

interface Told {
  id: string;
  verdict: Verdict;
  detail: string;
  remedy?: string;
}

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
    const { ok, checks } = outcome.json() as { ok: boolean; checks: Told[] };
    const told = (id: string) => checks.find((one) => one.id === id)!;
    return { ...outcome, ok, checks, told, failing: checks.filter(({ verdict }) => verdict === 'failed') };
  };
  /** Exactly these checks fail, and each says and advises this. */
  const expectFailures = async (
    expected: Record<string, [detail: RegExp, remedy: RegExp]>,
    env: Record<string, string> = {},
  ) => {
    const found = await doctor(env);
    assert.deepEqual(
      found.failing.map(({ id }) => id).sort(),
      Object.keys(expected).sort(),
      JSON.stringify(found.failing, null, 1),
    );
    assert.deepEqual([found.code, found.ok], [1, false]);
    for (const [id, [detail, remedy]] of Object.entries(expected)) {
      assert.match(found.told(id).detail, detail);
      assert.match(found.told(id).remedy ?? '', remedy);
    }
    return found;
  };
  const done = async (name: string, ...argv: string[]) => {
    const { code, stderr } = await project.task(name, [...argv, '--yes', '--json']);
    assert.equal(code, 0, stderr);
  };
  const good = await project.read('.env');
  const inProject = (...names: string[]) => join(project.root, ...names);
  const image = (tag: string) => `${project.name}:${tag}`;
  const BASE = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
  const { ports } = project;

  await t.test(
    'before anything runs: port, secret, .env, owner, subnet, leftovers, each broken, each named',
    async () => {
      const server = createServer().listen(ports.prod, '127.0.0.1');
      await new Promise((resolve) => server.once('listening', resolve));
      const secret = 'hunter2-correct-horse';
      await project.write('configs/mail.json', `{\n  "smtp_password": "${secret}"\n}\n`);
      const taken = await docker(
        'network',
        'inspect',
        '--format',
        '{{(index .IPAM.Config 0).Subnet}}',
        'bridge',
      );
      await project.write(
        '.env',
        `${good.replace(/^TINY_SUBNET=.*$/m, `TINY_SUBNET=${taken}`)}TINY_UID=1000\nTINY_GID=1000\n`,
      );
      await chmod(dotenv, 0o644);
      await chown(data, 4242, 4242);
      const left = `${project.name}-candidate-dead`;
      await docker(
        'create',
        `--name=${left}`,
        `--label=release-flow.candidate=${project.name}`,
        BASE,
        'true',
      );
      await docker('tag', BASE, image('candidate-dead'));
      await mkdir(inProject('.synapse/work-dead'), { recursive: true });
      await project.write('configs/.release.toml.0a1b.partial', '');
      const { stdout, stderr, told } = await expectFailures({
        ports: [new RegExp(`^Port ${ports.prod}, which prod needs, is taken by node`), /TINY_PROD_PORT=/],
        secrets: [/configs\/mail\.json:2 gives smtp_password a value/, /move it to \.env/],
        dotenv: [/mode 0644, expected 0600/, /chmod 0600 \.env/],
        'data-directory': [/belongs to 4242:4242, the containers run as 1000:1000/, /npm run setup/],
        subnet: [new RegExp(`${taken} overlaps the Docker network bridge`), /TINY_SUBNET=/],
        leftovers: [/candidate-dead/, new RegExp(`docker rm --force --volumes ${left}`)],
      });
      assert.ok(!stdout.includes(secret) && !stderr.includes(secret), 'the place is told, never the value');
      for (const what of [left, image('candidate-dead'), 'work-dead', '.release.toml.0a1b.partial']) {
        assert.ok(told('leftovers').detail.includes(what), what);
      }
      await new Promise((resolve) => server.close(resolve));
      await docker('rm', left);
      await docker('rmi', image('candidate-dead'));
      await rm(inProject('.synapse/work-dead'), { recursive: true });
      await rm(inProject('configs/.release.toml.0a1b.partial'));
      await rm(inProject('configs/mail.json'));
      await chown(data, 1000, 1000);
      await project.write('.env', good);
      await chmod(dotenv, 0o600);
    },
  );

  await done('release', 'patch');
  await done('switch-env', 'both');

  await t.test('a fit machine: nothing fails, nothing is changed', async () => {
    const before = await project.snapshot();
    const { code, ok, failing, checks } = await doctor();
    assert.deepEqual([code, ok, failing], [0, true, []]);
    assert.deepEqual(await project.snapshot(), before);
    const unchecked = checks.filter(({ verdict }) => verdict === 'unchecked');
    assert.deepEqual(
      unchecked.map(({ id }) => id),
      ['service-config'],
      'what does not apply is not called well',
    );
    assert.match(unchecked[0]!.detail, /environments\.\*\.config/);
  });

  await t.test('stopped engine: its own check fails; what needs it is not called well', async () => {
    const { told } = await expectFailures(
      { engine: [/No Docker engine answers/, /DOCKER_HOST|start Docker/] },
      { DOCKER_HOST: 'unix:///nowhere/docker.sock' },
    );
    for (const id of ['memory-limits', 'architecture', 'releases', 'leftovers']) {
      assert.equal(told(id).verdict, 'unchecked', id);
    }
    assert.equal(told('dotenv').verdict, 'ok', 'what needs no engine is still checked');
  });

  await t.test('prod is unhealthy', async () => {
    await waitForContainer(await replaceContainer(project, 'prod', { illness: 'unhealthy' }), isUnhealthy);
    await expectFailures({ health: [/^prod is active, but not healthy$/, /npm run status/] });
    await docker('rm', '--force', `${project.name}-prod`);
    await expectFailures({ health: [/^prod is active, but not healthy$/, /npm run status/] });
    await done('switch-env', 'both');
  });

  /** The annotated tag of the first release: the tests below move it, replace it, remove it. */
  const tag = await project.git('rev-parse', 'refs/tags/v1.0.0');
  const restoreTag = () => project.git('update-ref', 'refs/tags/v1.0.0', tag);

  await t.test(
    'old Compose, missing Buildx, a compose file that is not valid; a tag moved, notes without its entry',
    async () => {
      const { env } = await fakeDocker(project, {
        'compose version': 'echo 2.20.3',
        'buildx version': 'exit 1',
      });
      await project.commit('feat: where the tag is moved to', { note: 'moved\n' });
      const file = 'compose/docker-compose.yml';
      const valid = await project.read(file);
      await project.write(file, valid.replace('restart: always', 'restart: [always]'));
      const message = (await project.git('cat-file', 'tag', 'v1.0.0')).split('\n\n').slice(1).join('\n\n');
      await project.git('tag', '--force', '--annotate', 'v1.0.0', '-m', message);
      const notes = await project.read('release-notes.md');
      await project.write('release-notes.md', '# Release notes\n');
      const { told } = await expectFailures(
        {
          compose: [/version 2\.20\.3, expected 2\.24\.0 or newer/, /npm run setup/],
          buildx: [/not installed/, /npm run setup/],
          'compose-config': [/compose file is not valid/, /docker-compose\.yml/],
          releases: [/git tag v1\.0\.0 was moved/, /git fetch --tags/],
        },
        env,
      );
      assert.equal(told('subnet').verdict, 'unchecked', 'told once, by its own check');
      assert.match(told('releases').detail, /no entry for v1\.0\.0/);
      assert.match(told('releases').remedy!, /git show v1\.0\.0/);
      await project.write(file, valid);
      await project.write('release-notes.md', notes);
      await restoreTag();
    },
  );

  await t.test(
    '.env not ignored, data open to all, port of a stranger, image re-tagged, a merge that waits',
    async () => {
      const other = `${project.name}-other`;
      t.after(() => docker('rm', '--force', other).catch(() => {}));
      await docker(
        'run',
        '--detach',
        `--name=${other}`,
        '--publish=127.0.0.1::8002',
        '--entrypoint=sleep',
        BASE,
        '120',
      );
      const port = (await docker('port', other, '8002/tcp')).split(':').at(-1)!;
      await project.write('.env', good.replace(/^TINY_DEV_PORT=.*$/m, `TINY_DEV_PORT=${port}`));
      await chmod(data, 0o755);
      await docker('tag', image('v1.0.0'), image('kept'));
      await docker('tag', BASE, image('v1.0.0'));
      await project.git('switch', '--quiet', '--create', 'side');
      await project.commit('feat: side', { note: 'side\n' });
      await project.git('switch', '--quiet', 'main');
      await project.commit('feat: main', { note: 'main\n' });
      await project.git('merge', 'side').catch(() => {});
      const ignore = await project.read('.gitignore');
      await project.write('.gitignore', 'data/\n.synapse/\n');
      await expectFailures({
        ports: [
          new RegExp(`^Port ${port}, which dev needs, is taken by the container ${other}`),
          /TINY_DEV_PORT/,
        ],
        dotenv: [/git does not ignore \.env/, /\.gitignore/],
        'data-directory': [/mode 0755, expected 0700/, /npm run setup/],
        releases: [/v1\.0\.0 is not the released one/, /docker image rm .*npm run build-push -- v1\.0\.0/],
        git: [/a merge is not finished/, /git merge --abort/],
      });
      await project.write('.gitignore', ignore);
      await project.git('merge', '--abort');
      await docker('rm', '--force', other);
      await docker('rmi', image('v1.0.0'));
      await chmod(data, 0o700);
      await project.write('.env', good);
    },
  );

  await t.test('.env that cannot be read: what it decides is not guessed', async () => {
    await rename(dotenv, `${dotenv}.kept`);
    await mkdir(dotenv);
    const { told } = await expectFailures({ dotenv: [/\.env is not a file/, /npm run setup/] });
    assert.equal(told('ports').verdict, 'unchecked');
    const status = await project.task('status', ['--json']);
    assert.deepEqual([status.code, (status.json().error as { code: string }).code], [2, 'dotenv-unreadable']);
    await rm(dotenv, { recursive: true });
    await rename(`${dotenv}.kept`, dotenv);
  });

  await t.test(
    'data directory gone, on a file system that forgets; images and tags that miss each other',
    async () => {
      await project.write(
        '.env',
        `${await project.read('.env')}TINY_DATA_DIR=/dev/shm/${project.name}\nTINY_PROD_TAG=v1.0.0\n`,
      );
      await docker('tag', image('kept'), image('v7.0.0'));
      await expectFailures({
        'data-directory': [/does not exist/, /npm run setup/],
        'file-system': [/tmpfs: it is in memory/, /TINY_DATA_DIR/],
        releases: [/image .*:v7\.0\.0 has no git tag/, /git fetch --tags/],
        images: [
          /image .*:v1\.0\.0, which \.env names for prod, is not on this machine/,
          /npm run build-push -- v1\.0\.0/,
        ],
      });
      await docker('tag', image('kept'), image('v1.0.0'));
      await docker('rmi', image('kept'), image('v7.0.0'));
      await project.write('.env', good);
    },
  );

  await t.test(
    'interrupted release, on another branch than releases come from, a tag gone; run again, all is well',
    async () => {
      const killed = await project.task('release', ['minor', '--yes'], {
        env: { RELEASE_FLOW_FAULT: 'SIGKILL@release/refs' },
      });
      assert.notEqual(killed.code, 0, killed.stderr);
      await project.git('switch', '--quiet', 'side');
      await project.git('tag', '--delete', 'v1.0.0');
      const { told } = await expectFailures({
        releases: [/entry for v1\.0\.0, git has no such tag/, /git fetch --tags/],
        interrupted: [/release was interrupted at .* after/, /npm run release/],
      });
      assert.equal(told('leftovers').verdict, 'unchecked', 'what the release will go on with is no rubbish');
      assert.deepEqual(
        [told('git').verdict, /releases come from main/.test(told('git').detail)],
        ['warning', true],
      );
      await restoreTag();
      await project.git('switch', '--quiet', 'main');
      await done('release', 'minor');
      assert.deepEqual((await doctor()).failing, []);
    },
  );

  await t.test(
    '--config: every value with its layer; a wrong one is refused, as is a tag that was set by hand',
    async () => {
      for (const name of ['synapse.json', 'synapse_dev.json']) {
        await project.write(`configs/${name}`, await readFile(join(REPOSITORY, 'configs', name), 'utf8'));
      }
      await project.edit('configs/release.toml', (text) =>
        text.replace('service = "tiny-dev"', 'service = "tiny-dev"\nconfig = "configs/synapse_dev.json"'),
      );
      const shown = await project.task('doctor', ['--config', 'dev', '--json']);
      assert.equal(shown.code, 0, shown.stderr);
      const { values } = shown.json() as { values: { path: string; value: unknown; origin: string }[] };
      const told = (path: string) => values.find((one) => one.path === path);
      assert.deepEqual(
        [told('log.level')?.value, told('log.level')?.origin],
        ['DEBUG', 'configs/synapse_dev.json'],
      );
      assert.equal(told('server.port')?.origin, 'configs/synapse.json');
      assert.equal((await project.task('doctor', ['--config', 'prod'])).code, 2, 'prod names none');
      assert.equal((await project.task('doctor', ['--config', 'staging'])).code, 2);

      await project.write('configs/synapse_dev.json', '{ "log": { "levle": "DEBUG" } }');
      await project.git('tag', '--force', 'v1.0.0', 'HEAD');
      await expectFailures({
        'service-config': [/levle/, /repair configs\/synapse_dev\.json/],
        releases: [/git tag v1\.0\.0 is not the release's/, /git fetch --tags --force/],
      });
    },
  );
});
