// What is found before the first step of a switch, and how a release's image comes back that is not here.
import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { docker, runProcess } from './processes.ts';
import { tinyProject } from './project.ts';
import { startRegistry } from './registry.ts';
import { answerOf, buildTiny, inspect, mustSwitch, refuses, runningProject } from './switch-support.ts';

test('problems of the machine are reported before anything is touched, all of them together', async (t) => {
  const project = await runningProject(t);
  const disk = await mkdtemp(join(tmpdir(), 'small-disk-'));
  t.after(async () => {
    await runProcess('umount', [disk]);
    await rm(disk, { recursive: true });
  });
  const directory = join(disk, 'data');
  await project.edit('compose/docker-compose.yml', (text) =>
    text.replaceAll(
      '    init: true\n',
      '    init: true\n    user: "1000:1000"\n    volumes: ["$TINY_DATA_DIR:/data"]\n',
    ),
  );
  await project.edit('.env', (text) => `${text}TINY_DATA_DIR=${directory}\n`);
  await t.test('no data directory, and a service configuration with a typing error', async () => {
    await project.write('configs/synapse.json', '{}');
    await project.write('configs/app.json', '{ "server": { "prot": 1 } }');
    const toml = await project.read('configs/release.toml');
    await project.write(
      'configs/release.toml',
      toml.replace('service = "tiny-prod"', 'service = "tiny-prod"\nconfig = "configs/app.json"'),
    );
    const text = new RegExp(
      `configs/app\\.json:1:15: server\\.prot: unknown key[\\s\\S]*data directory ${directory} does not exist`,
    );
    await refuses(project, ['prod', '--version', 'v1.0.1'], ['service-config-invalid', text]);
    await project.write('configs/release.toml', toml);
  });

  await t.test('a data directory that others may read and the service may not write', async () => {
    await mkdir(directory);
    await chmod(directory, 0o755);
    const text = /has mode 0755, expected 0700[\s\S]*belongs to 0:0, the containers run as 1000/;
    await refuses(project, ['prod', '--version', 'v1.0.1'], ['data-directory', text]);
  });

  await t.test('less memory than the environment reserves', async () => {
    const compose = await project.read('compose/docker-compose.yml');
    const reserving = '    init: true\n    deploy: { resources: { reservations: { memory: 9000g } } }\n';
    await project.write('compose/docker-compose.yml', compose.replaceAll('    init: true\n', reserving));
    await refuses(
      project,
      ['both'],
      ['memory-short', /Not enough memory: .* available, dev reserve 9\.\d TB/],
    );
    await project.write('compose/docker-compose.yml', compose);
  });

  await t.test(
    'a full disk',
    { skip: process.getuid?.() !== 0 && 'needs root to mount a small disk' },
    async () => {
      await runProcess('mount', ['-t', 'tmpfs', '-o', 'size=120m', 'none', disk]);
      await mkdir(directory, { mode: 0o700 });
      await runProcess('chown', ['1000:1000', directory]);
      await writeFile(join(directory, 'ballast'), Buffer.alloc(100 * 2 ** 20));
      await refuses(project, ['dev'], ['disk-full', /The disk of the data directory .* is full: 21 MB free/]);
    },
  );
});

test('a release whose image is gone is built again from its git tag, or pulled by its digest', async (t) => {
  const project = await tinyProject(t);
  const server = await startRegistry(t);
  const release = await project.task('release', ['1.0.0', '--yes', '--json']);
  assert.equal(release.code, 0, release.stderr);
  const { digest } = release.json() as { digest: string };
  const image = `${project.name}:v1.0.0`;
  await project.write('server.mjs', 'throw new Error("the working tree is not what was released")');
  const forget = () => docker('image', 'rm', '--force', image, `${project.name}:latest`);
  const isBack = async () => {
    assert.equal(await inspect(image, '{{.Id}}'), digest);
    assert.equal((await answerOf(project, 'prod')).version, '1.0.0');
  };

  await t.test('built again', async () => {
    await forget();
    const outcome = await mustSwitch(project, 'prod', '--version', 'v1.0.0');
    assert.match(
      outcome.stderr,
      /build from its git tag the image of v1\.0\.0, which is not on this machine/,
    );
    await isBack();
  });

  await t.test('pulled', async () => {
    await docker('tag', image, `${server.address}/${image}`);
    await docker('push', '--quiet', `${server.address}/${image}`);
    await mustSwitch(project, 'none');
    await docker('rm', `${project.name}-prod`);
    await docker('image', 'rm', '--force', image, `${server.address}/${image}`);
    await project.edit('configs/release.toml', (text) =>
      text.replace('[image]', `[image]\nregistry = "${server.address}"`),
    );
    await buildTiny(project, 'latest', 'ok');
    const outcome = await mustSwitch(project, 'prod', '--version', 'v1.0.0');
    assert.match(outcome.stderr, /pull the image of v1\.0\.0, which is not on this machine/);
    await isBack();
  });
});
