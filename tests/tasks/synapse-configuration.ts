// The four layers of the service's configuration in real containers, read through /health; and mistakes in them, which
// the tasks and the container refuse before anything starts.
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { answeredHealth, configFolder, startContainer } from './container.ts';
import { docker } from './processes.ts';
import type { TestProject } from './project.ts';

/** What each layer sets; a higher one wins. Which, and every way to get it wrong, is in tests/unit/service-config. */
const LAYERS = {
  base: { log: { level: 'WARN' }, automatic_learning: { mode: 'aggressive' } },
  overlay: { environment: 'prod', log: { level: 'ERROR' } },
  env: ['LOG_LEVEL=INFO'],
};

/** A mistake in a file and one in a variable, and what the message must name. */
const MISTAKES = [
  {
    name: 'unknown-key',
    overlay: '{\n  "automatic_learning": { "mod": "moderate" }\n}\n',
    env: [],
    says: /synapse_prod\.json:2:27.*automatic_learning\.mod.*unknown key.*did you mean.*automatic_learning\.mode/s,
  },
  {
    name: 'unknown-variable',
    overlay: '{}',
    env: ['SYNAPSE_LOG_LEVEL=DEBUG'],
    says: /environment variable SYNAPSE_LOG_LEVEL.*unknown variable.*did you mean.*SYNAPSE_LOG__LEVEL/s,
  },
];

/** In a project that is up; leaves it with mistakes in its configuration. */
export async function testConfiguration(t: TestContext, project: TestProject): Promise<void> {
  const start = async (name: string, base: object | string, overlay: object | string, env: string[]) => {
    const configs = await configFolder(project, name, { 'synapse.json': base, 'synapse_prod.json': overlay });
    const variables = ['SYNAPSE_CONFIG_PATH=/app/configs/synapse_prod.json', ...env];
    return startContainer(project, name, [
      `--volume=${configs}:/app/configs:ro`,
      '--volume=/app/data',
      ...variables.map((variable) => `--env=${variable}`),
    ]);
  };

  await t.test('the container reads its variables, its environment file and the base file', async () => {
    const { base, overlay, env } = LAYERS;
    const health = await answeredHealth(await start('layers', base, overlay, env));
    const { env: environment, logLevel, automaticLearning } = health;
    assert.deepEqual([environment, logLevel, automaticLearning], ['prod', 'INFO', 'aggressive']);
  });

  await t.test('a mistake keeps the container from starting, and its log says where it is', async () => {
    for (const { name, overlay, env, says } of MISTAKES) {
      const { name: container } = await start(name, {}, overlay, env);
      assert.equal(await docker('wait', container), '2', name);
      const log = JSON.parse(await docker('logs', container)) as Record<string, unknown>;
      assert.match(JSON.stringify(log).replaceAll('\\"', '"'), says, name);
    }
  });

  await t.test('a mistake is found by release and switch before anything starts: exit 2', async () => {
    const good = await project.read('configs/synapse_prod.json');
    for (const { name, overlay, env, says } of MISTAKES) {
      await project.write('configs/synapse_prod.json', env.length > 0 ? good : overlay);
      await project.write('.env.prod', env.map((variable) => `${variable}\n`).join(''));
      await project.commit('chore: a mistake');
      const before = await project.snapshot();
      for (const [task, ...argv] of [
        ['release', 'patch'],
        ['switch-env', 'prod'],
      ] as const) {
        const refused = await project.task(task, [...argv, '--yes', '--json']);
        const { error } = refused.json() as { error?: { code: string; message: string } };
        assert.deepEqual(
          [refused.code, error?.code],
          [2, 'service-config-invalid'],
          `${task}: ${refused.stderr}`,
        );
        assert.match(error?.message ?? '', says, `${task} on ${name}`);
      }
      assert.deepEqual(await project.snapshot(), before, name);
    }
  });

  await t.test('an environment whose configuration is valid can still be started', async () => {
    await project.write('.env.prod', '');
    await project.write('configs/synapse_prod.json', '{ "nonsense": 1 }');
    const dev = await project.task('switch-env', ['dev', '--yes', '--json']);
    assert.equal(dev.code, 0, dev.stderr);
    assert.equal((await project.health('dev')).env, 'dev');
  });
}
