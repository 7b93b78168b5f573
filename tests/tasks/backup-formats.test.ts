// A restore of data that the release which runs cannot read: the release that the archive names can, and is started.

import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { releaseTagMessage } from '../../tasks/lib/release/record.ts';
import { backup, dataOf, mustBackup, readData, tinyWithData, writeData } from './backup-support.ts';
import { docker } from './processes.ts';
import { configure, type TestProject } from './project.ts';
import { mustSwitch } from './switch-support.ts';

const LABEL = 'org.tiny.data-format';

/** The tiny app once more, as a release that says which data it reads. */
async function releaseReading(project: TestProject, tag: string, format: number): Promise<void> {
  const image = `${project.name}:${tag}`;
  const revision = await project.git('rev-parse', 'HEAD');
  const version = tag.slice(1);
  const context = join(project.directory, `image-${tag}`);
  await mkdir(context);
  await writeFile(
    join(context, 'Dockerfile'),
    `FROM ${project.name}:v1.0.1
ENV APP_VERSION=${version} APP_REVISION=${revision}
LABEL org.opencontainers.image.version=${version} org.opencontainers.image.revision=${revision} ${LABEL}=${format}
`,
  );
  await docker('build', '--quiet', '--provenance=false', '--tag', image, context);
  const digest = await docker('image', 'inspect', '--format', '{{.Id}}', image);
  const message = releaseTagMessage(tag, { image, digest, platforms: {} });
  await project.git('tag', '--annotate', '--message', message, tag);
}

/** The container of a restore that was killed, as if it had not noticed yet. */
async function stillAtWork(project: TestProject): Promise<string> {
  const name = `${project.name}-backup-swap-in-test`;
  const label = `release-flow.backup=${project.name}`;
  const node = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
  await docker(
    'run',
    '--detach',
    '--rm',
    '--name',
    name,
    '--label',
    label,
    '--entrypoint',
    'sleep',
    node,
    '60',
  );
  return name;
}

/** Data of a format, written while nobody looks. */
async function writeDataOf(project: TestProject, text: string, format: number): Promise<void> {
  await writeData(project, text);
  await writeFile(join(dataOf(project), 'format.json'), `{"dataFormat":${format}}\n`);
}

test('data that only a newer release can read comes back with that release', async (t) => {
  const project = await tinyWithData(t);
  await configure(project, 'data', `format_label = "${LABEL}"`);
  await releaseReading(project, 'v1.1.0', 1);
  await releaseReading(project, 'v1.2.0', 2);
  await writeDataOf(project, 'new', 2);
  await mustSwitch(project, 'prod', '--version', 'v1.2.0');
  const { archive } = await mustBackup(project, 'create');
  await writeDataOf(project, 'old', 1);
  await mustSwitch(project, 'prod', '--version', 'v1.1.0');
  const before = await project.snapshot();

  await t.test('refused before anything stops where that release is not to be had', async () => {
    const image = `${project.name}:v1.2.0`;
    await docker('image', 'tag', image, `${project.name}:aside`);
    await docker('image', 'rm', image);
    const refused = await backup(project, ['restore', archive]);
    await docker('image', 'tag', `${project.name}:aside`, image);
    await docker('image', 'rm', `${project.name}:aside`);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /v1\.2\.0 is not on this machine/);
    assert.equal(await readData(dataOf(project)), 'old');
    assert.deepEqual(await project.snapshot(), before);
  });

  await t.test(
    'a restore that fails afterwards leaves the present release with the present data',
    async () => {
      const env = { RELEASE_FLOW_FAULT: 'SIGKILL@backup-restore/swap/applied' };
      const killed = await backup(project, ['restore', archive], { env });
      assert.equal(killed.code, 137, killed.stderr);
      const leftover = await stillAtWork(project);
      await mustBackup(project, 'verify');
      assert.equal(
        await docker('ps', '--quiet', '--filter', `name=${leftover}`),
        '',
        'stopped before all else',
      );
      assert.equal(await readData(dataOf(project)), 'old');
      assert.equal((await project.health('prod')).version, '1.1.0');
      assert.equal((await project.snapshot()).env, before.env);
    },
  );

  await t.test('prod runs the release that the archive names, on its data, and .env says so', async () => {
    await mustBackup(project, 'restore', archive);
    assert.equal(await readData(dataOf(project)), 'new');
    assert.equal((await project.health('prod')).version, '1.2.0');
    assert.match(await project.read('.env'), /^TINY_PROD_TAG=v1\.2\.0$/m);
    const status = await project.task('status', ['--json']);
    assert.equal(status.json().prodTag, 'v1.2.0', status.stderr);
  });

  await t.test('and back: older data is read by the newer release, which stays', async () => {
    const { archives } = await mustBackup(project, 'list');
    const older = archives.find(({ version }: { version: string }) => version === 'v1.1.0');
    await mustBackup(project, 'restore', older.archive);
    assert.equal(await readData(dataOf(project)), 'old');
    assert.equal((await project.health('prod')).version, '1.2.0');
  });
});
