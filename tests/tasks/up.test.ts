// `up` says that both environments are up when they are, and never otherwise.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeDocker, runningProject } from './switch-support.ts';

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
