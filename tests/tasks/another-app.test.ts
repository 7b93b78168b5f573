// Another project copies tasks/ and a few files, as the README says: nothing in there may need this project's service.
import assert from 'node:assert/strict';
import { cp, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { runProcess } from './processes.ts';
import { REPOSITORY } from './project.ts';
import { runningProject } from './switch-support.ts';

test('what the README says to copy is enough for another app: its notes, a switch, its status', async (t) => {
  const project = await runningProject(t);
  for (const path of ['tasks', 'service/config', 'package.json', 'tsconfig.json'])
    await cp(join(REPOSITORY, path), join(project.root, path), { recursive: true });
  await symlink(join(REPOSITORY, 'node_modules'), join(project.root, 'node_modules'));
  await project.git('commit', '--quiet', '--allow-empty', '-m', 'feat: another app');
  const run = async (name: string, ...argv: string[]) => {
    const command = ['tasks/start.mjs', name, ...argv, '--json'];
    const outcome = await runProcess(process.execPath, command, { cwd: project.root });
    assert.equal(outcome.code, 0, outcome.stderr);
    return outcome.json();
  };
  assert.match((await run('release', '--notes-only')).notes as string, /another app/);
  assert.equal((await run('switch-env', 'prod', '--version', 'v1.0.1', '--yes')).changed, true);
  assert.equal((await project.health('prod')).version, '1.0.1');
  assert.equal((await run('status')).ok, true);
});
