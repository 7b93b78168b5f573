// `up` says that both environments are up when they are, and never otherwise.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { docker } from './processes.ts';
import { tinyProject } from './project.ts';
import { fakeDocker, releaseTiny, runningProject } from './switch-support.ts';

test('dev dies as soon as it was switched to: an error that names it, and prod goes on', async (t) => {
  const project = await runningProject(t);
  const isSwitched = `grep -qs ACTIVE_ENV=both ${project.root}/.env`;
  const kill = `${isSwitched} && "$real" kill ${project.name}-dev > /dev/null 2>&1`;
  const { PATH } = await fakeDocker(t, kill);
  const up = await project.task('up', ['--yes', '--json'], { env: { PATH } });
  assert.equal(up.code, 1, up.stderr);
  const { code, message, hint } = up.json().error as { code: string; message: string; hint: string };
  assert.equal(code, 'not-up', up.stderr);
  assert.match(message, /^dev did not stay up/);
  assert.match(hint, new RegExp(`docker logs --tail 50 ${project.name}-dev$`));
  assert.equal((await project.health('prod')).env, 'prod');

  const again = await project.task('up', ['--yes', '--json']);
  assert.equal(again.code, 0, again.stderr);
  assert.equal((await project.health('dev')).env, 'dev');
});

test('a release that does not start: the plan was shown first, the way out is said, and it works', async (t) => {
  const project = await tinyProject(t);
  const newest = async (tag: string, behaviour: 'ok' | 'crash') => {
    await releaseTiny(project, tag, behaviour);
    await docker('image', 'tag', `${project.name}:${tag}`, `${project.name}:latest`);
  };
  await newest('v1.0.0', 'crash');
  const asked = await project.task('up', []);
  assert.deepEqual([asked.code, /Confirmation required/.test(asked.stderr)], [2, true], asked.stderr);
  assert.match(asked.stderr, /This will:\n[\s\S]*- write \.env: [\s\S]*- start dev and prod\n/);
  const failed = await project.task('up', ['--yes']);
  assert.equal(failed.code, 1, failed.stderr);
  assert.match(failed.stderr, /if v1\.0\.0 itself is broken: .*npm run release -- patch && npm run up/);
  await newest('v1.0.1', 'ok');
  const up = await project.task('up', ['--yes']);
  assert.equal(up.code, 0, up.stderr);
  assert.equal((await project.health('prod')).version, '1.0.1');
});
