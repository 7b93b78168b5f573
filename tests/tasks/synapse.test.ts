// README's story on this project: from a fresh clone to both environments, a release, a switch to it and back, with the
// memory kept. Then, in the same project, the service, doctor, and the service's configuration.
import assert from 'node:assert/strict';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { callTool } from './mcp.ts';
import { docker } from './processes.ts';
import { synapseProject } from './project.ts';
import { testConfiguration } from './synapse-configuration.ts';
import { testDoctor } from './synapse-doctor.ts';
import { testService } from './synapse-service.ts';

const FACT = { key: 'editor', value: { name: 'helix', since: 2024 } };

test('from a fresh clone to both environments, a release, and back', async (t) => {
  const project = await synapseProject(t);
  const up = (...argv: string[]) => project.task('up', ['--yes', '--json', ...argv]);
  const searchFact = async () => {
    const found = await callTool(project.ports.prod, 'sy.mem.search', {
      project_id: 'story',
      query: FACT.key,
      memory_type: 'symbolic',
    });
    return JSON.stringify(found);
  };
  let firstCommit = '';

  await t.test('up makes the first release and both environments healthy', async () => {
    const before = await project.snapshot();
    const unasked = await project.task('up', ['--json']);
    assert.deepEqual([unasked.code, (unasked.json().error as { code: string }).code], [2, 'no-terminal']);
    assert.deepEqual(await project.snapshot(), before, 'nothing happens without a yes');

    const first = await up();
    assert.equal(first.code, 0, first.stderr);
    const { ok, task, active, prodTag } = first.json();
    assert.deepEqual(
      { ok, task, active, prodTag },
      { ok: true, task: 'up', active: 'both', prodTag: 'v1.0.0' },
    );
    assert.equal((await stat(join(project.directory, 'data'))).mode & 0o777, 0o700, 'memory is private');
    assert.equal((await stat(join(project.root, '.env'))).mode & 0o777, 0o600);
    firstCommit = await project.git('rev-parse', 'v1.0.0^{commit}');
  });

  await t.test(
    'each /health shows its environment, version, commit, learning mode and log level',
    async () => {
      const shown = async (name: 'dev' | 'prod') => {
        const { status, env, version, revision, automaticLearning, logLevel } = await project.health(name);
        return { status, env, version, revision, automaticLearning, logLevel };
      };
      const release = { status: 'ok', version: '1.0.0', revision: firstCommit };
      const dev = { ...release, env: 'dev', automaticLearning: 'aggressive', logLevel: 'DEBUG' };
      const prod = { ...release, env: 'prod', automaticLearning: 'moderate', logLevel: 'INFO' };
      assert.deepEqual([await shown('dev'), await shown('prod')], [dev, prod]);
    },
  );

  await t.test('a second up changes nothing', async () => {
    const before = await project.snapshot();
    const second = await up();
    assert.equal(second.code, 0, second.stderr);
    assert.deepEqual(await project.snapshot(), before);
  });

  await t.test('a fact written through dev is read through prod, also from new containers', async () => {
    await callTool(project.ports.dev, 'sy.mem.fact.add', {
      project_id: 'story',
      fact_key: FACT.key,
      fact_value: FACT.value,
    });
    assert.match(await searchFact(), /helix/);

    const { containers: old } = await project.snapshot();
    await docker('rm', '--force', '--volumes', `${project.name}-dev`, `${project.name}-prod`);
    const again = await up();
    assert.equal(again.code, 0, again.stderr);
    assert.notEqual((await project.snapshot()).containers, old);
    assert.match(await searchFact(), /helix/);
  });

  await t.test('release patch, switch prod to it: /health shows its version and tagged commit', async () => {
    await project.commit('fix: something small', {
      'service/note.txt': 'a change inside the build context\n',
    });
    const release = await project.task('release', ['patch', '--yes', '--json']);
    assert.equal(release.code, 0, release.stderr);
    const { tag, commit, digest } = release.json() as Record<string, string>;
    assert.equal(tag, 'v1.0.1');
    assert.equal(await project.git('rev-parse', 'v1.0.1^{commit}', 'main'), `${commit}\n${commit}`);
    assert.equal((await project.health('prod')).version, '1.0.0', 'a release alone switches nothing');

    const switched = await project.task('switch-env', ['prod', '--version', 'v1.0.1', '--yes', '--json']);
    assert.equal(switched.code, 0, switched.stderr);
    const { env, version, revision } = await project.health('prod');
    assert.deepEqual({ env, version, revision }, { env: 'prod', version: '1.0.1', revision: commit });
    assert.equal(await docker('inspect', '--format', '{{.Image}}', `${project.name}-prod`), digest);
    assert.match(await project.read('.env'), /^SYNAPSE_ACTIVE_ENV=prod$/m);
    assert.match(await searchFact(), /helix/);
  });

  await t.test('switch back: prod runs v1.0.0 again with the same memory', async () => {
    const back = await project.task('switch-env', ['prod', '--version', 'previous', '--yes', '--json']);
    assert.equal(back.code, 0, back.stderr);
    assert.deepEqual(
      [(await project.health('prod')).version, (await project.health('prod')).revision],
      ['1.0.0', firstCommit],
    );
    assert.match(await searchFact(), /helix/);
    assert.equal(await project.git('status', '--porcelain'), '');
  });

  await t.test('a step that fails: one JSON object, exit 1, and the environments keep running', async () => {
    const before = await project.snapshot();
    const failed = await project.task('up', ['--yes', '--json'], {
      env: { DOCKER_HOST: 'tcp://127.0.0.1:9' },
    });
    assert.equal(failed.code, 1, failed.stderr);
    const { ok, error } = failed.json() as { ok: boolean; error: { code: string; message: string } };
    assert.deepEqual([ok, error.code], [false, 'engine-unreachable'], 'the error of the step itself');
    assert.match(error.message, /^No Docker engine answers at tcp:\/\/127\.0\.0\.1:9/);
    assert.deepEqual(await project.snapshot(), before);
  });

  await t.test('the service in both environments', (s) => testService(s, project));
  await t.test('doctor --live, on both environments', (s) => testDoctor(s, project));
  await t.test('the configuration of the service, in real containers', (s) => testConfiguration(s, project));
});
