// A project in a folder that a person may have named, with what means something to docker's options (CSV) and to .env.
import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { tinyProject } from './project.ts';

test('a comma, a quote and a space in the path: set up, released, switched, backed up and restored', async (t) => {
  const project = await tinyProject(t, 'a, "b" ');
  const node = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
  const [data, backups] = [join(project.directory, 'data'), join(project.directory, 'backups')];
  await project.edit('.env', (text) =>
    text
      .replace(/^TINY_BASE_IMAGE=.*$/m, `TINY_BASE_IMAGE=${node}`)
      .concat(`TINY_DATA_DIR='${data}'\nTINY_BACKUP_DIR='${backups}'\n`),
  );
  await project.edit('compose/docker-compose.yml', (text) =>
    text.replace(
      /^ {4}restart: always$/m,
      `$&\n    volumes: [{ type: bind, source: "\${TINY_DATA_DIR}", target: /app/data }]`,
    ),
  );
  await project.commit('build: mount the data');
  const run = async (task: string, ...argv: string[]) => {
    const done = await project.task(task, [...argv, '--yes', '--json']);
    assert.equal(done.code, 0, `${task}: ${done.stderr}${done.stdout}`);
  };
  await run('setup');
  await writeFile(join(data, 'kept'), 'what must not be lost');
  await run('release', 'patch');
  await run('switch-env', 'prod');
  await run('backup', 'create');
  await mkdir(join(project.directory, 'restored, too'));
  await run('backup', 'restore', 'latest', '--to', join(project.directory, 'restored, too/x'));
  const restored = await readFile(join(project.directory, 'restored, too/x/kept'), 'utf8');
  assert.equal(restored, 'what must not be lost');
});
