// What is backed up is what prod writes to, as it is mounted: any other directory makes a backup that looks as good, and holds
// nothing of what would be lost.

import assert from 'node:assert/strict';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  archivesOf,
  backup,
  backupsOf,
  dataOf,
  mountInServices,
  mustBackup,
  readData,
  tinyWithData,
  writeData,
} from './backup-support.ts';
import { docker } from './processes.ts';
import type { TestProject } from './project.ts';
import { mustSwitch } from './switch-support.ts';

const NODE = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';

/** Runs a shell as root on a volume of the project. */
function inVolume(project: TestProject, script: string): Promise<string> {
  const mount = `${project.name}_files:/v`;
  return docker('run', '--rm', '--network=none', '-v', mount, '--entrypoint', 'sh', NODE, '-c', script);
}

test('what is backed up is what prod mounts', async (t) => {
  const project = await tinyWithData(t);
  const config = await project.read('configs/release.toml');
  const other = join(project.directory, 'other');
  const uploads = join(project.directory, 'uploads');
  for (const path of [other, uploads]) await mkdir(path, { mode: 0o700 });
  await docker(
    'run',
    '--rm',
    '-v',
    `${project.directory}:/p`,
    '--entrypoint',
    'sh',
    NODE,
    '-c',
    'echo 1 > /p/other/file',
  );

  /** The configuration names another directory than prod mounts; `prod` is how prod is. */
  const wrong: [prod: string, prepare: () => Promise<unknown>][] = [
    ['running', async () => {}],
    ['without a container', () => docker('rm', '--force', `${project.name}-prod`)],
  ];
  for (const [prod, prepare] of wrong)
    await t.test(`the data of another service is not backed up: prod ${prod}`, async () => {
      await prepare();
      await project.write('configs/release.toml', config.replace(dataOf(project), other));
      const { code, json, stderr } = await backup(project, ['create']);
      assert.deepEqual([code, (json().error as { code: string }).code], [2, 'wrong-data'], stderr);
      assert.match(
        stderr,
        new RegExp(`Prod does not mount the data directory ${other}; .*${dataOf(project)}`),
      );
      await project.write('configs/release.toml', config);
      assert.deepEqual(await archivesOf(project), []);
    });

  await t.test('an empty directory is not backed up, nor a service that writes nowhere', async () => {
    await rename(join(dataOf(project), 'text'), join(other, 'text'));
    await rename(join(dataOf(project), 'letters.db'), join(other, 'letters.db'));
    const empty = await backup(project, ['create']);
    assert.deepEqual(
      [empty.code, (empty.json().error as { code: string }).code],
      [1, 'no-data'],
      empty.stderr,
    );
    await mountInServices(project, []);
    const nowhere = await backup(project, ['create']);
    assert.match(nowhere.stderr, /it writes to nothing/);
    assert.deepEqual(await archivesOf(project), []);
  });

  await t.test('several places with owners of their own come back, each as it was', async () => {
    const mounts = [`${dataOf(project)}:/app/data`, 'files:/app/files', `${uploads}:/app/up`];
    await mountInServices(project, [...mounts, 'cache:/app/cache', `${other}:/app/other:ro`]);
    await project.write(
      'configs/release.toml',
      config.replace('[backup]\n', '[backup]\nexclude = ["volumes/app-cache"]\n'),
    );
    await mustSwitch(project, 'prod', '--version', 'v1.0.0');
    await writeData(project, 'old');
    await inVolume(project, 'echo old > /v/mine; chown 1234:1234 /v /v/mine; chmod 0600 /v/mine');
    await docker('run', '--rm', '-v', `${uploads}:/v`, '--entrypoint', 'sh', NODE, '-c', 'echo old > /v/up');
    const { archive, skipped } = await mustBackup(project, 'create');
    assert.deepEqual(skipped, [{ path: 'volumes/app-cache', reason: 'excluded' }]);
    await writeData(project, 'new');
    await inVolume(project, 'echo new > /v/mine; echo more > /v/more');
    await rm(join(uploads, 'up'));
    await mustBackup(project, 'restore', archive);
    assert.equal(await readData(dataOf(project)), 'old');
    const files = await inVolume(project, 'cat /v/mine; stat -c "%u %a" /v/mine; ls -A /v');
    assert.equal(files, 'old\n1234 600\nmine');
    assert.equal(
      await docker('run', '--rm', '-v', `${uploads}:/v`, '--entrypoint', 'cat', NODE, '/v/up'),
      'old',
    );
    assert.equal((await project.health('prod')).env, 'prod');
  });

  await t.test('a named volume alone is backed up as it is mounted', async () => {
    await docker('rm', '--force', `${project.name}-prod`);
    await mountInServices(project, ['later:/app/data']);
    assert.match((await backup(project, ['create'])).stderr, /the volumes of prod do not exist yet/);
    assert.doesNotMatch(await docker('volume', 'ls'), new RegExp(`${project.name}_later`));
    await mountInServices(project, ['files:/app/data']);
    // The archives of before belong to another user.
    await rm(backupsOf(project), { recursive: true });
    await mustSwitch(project, 'prod', '--version', 'v1.0.0');
    const rehearsal = await backup(project, ['create', '--rehearse']);
    assert.match(rehearsal.stderr, /Cannot rehearse: prod does not mount the data directory/);
    const { archive, files } = await mustBackup(project, 'create');
    assert.equal(files, 1);
    await inVolume(project, 'rm /v/mine');
    await mustBackup(project, 'restore', archive);
    assert.equal(await inVolume(project, 'cat /v/mine'), 'old');
  });
});
