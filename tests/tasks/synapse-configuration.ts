// The four layers of the service's configuration in real containers, read through /health; and mistakes in them, which
// the tasks and the container refuse before anything starts.
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { answeredHealth, configFolder, startContainer } from './container.ts';
import { docker } from './processes.ts';
import type { TestProject } from './project.ts';

const BASE = { log: { level: 'WARN' }, automatic_learning: { mode: 'aggressive' } };
const OVERLAY = { environment: 'prod', log: { level: 'ERROR' }, automatic_learning: { mode: 'moderate' } };

/** Each row adds the next higher layer to the one above; what it sets wins, the rest stays. */
const LAYERS = [
  { name: 'defaults', base: {}, overlay: {}, env: [], expected: ['dev', 'INFO', 'moderate'] },
  { name: 'base-file', base: BASE, overlay: {}, env: [], expected: ['dev', 'WARN', 'aggressive'] },
  {
    name: 'environment-file',
    base: BASE,
    overlay: OVERLAY,
    env: [],
    expected: ['prod', 'ERROR', 'moderate'],
  },
  {
    name: 'variables',
    base: BASE,
    overlay: OVERLAY,
    env: ['SYNAPSE_ENV=dev', 'LOG_LEVEL=DEBUG', 'SYNAPSE_AUTOMATIC_LEARNING__MODE=aggressive'],
    expected: ['dev', 'DEBUG', 'aggressive'],
  },
  {
    name: 'one-variable',
    base: BASE,
    overlay: OVERLAY,
    env: ['LOG_LEVEL=INFO'],
    expected: ['prod', 'INFO', 'moderate'],
  },
];

/** How configuration goes wrong, and what the message must name. */
const MISTAKES = [
  {
    name: 'unknown-key',
    overlay: '{\n  "automatic_learning": { "mod": "moderate" }\n}\n',
    env: [],
    says: /synapse_prod\.json:2:27.*automatic_learning\.mod.*unknown key.*did you mean.*automatic_learning\.mode/s,
  },
  {
    name: 'wrong-type',
    overlay: '{ "server": { "port": "many" } }',
    env: [],
    says: /synapse_prod\.json:1:23.*server\.port.*expected number.*many/s,
  },
  {
    name: 'broken-json',
    overlay: '{\n  "environment": "prod",\n}\n',
    env: [],
    says: /synapse_prod\.json:3:1.*not valid JSON/s,
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

  await t.test('each layer wins over the next', async () => {
    const found = await Promise.all(
      LAYERS.map(async ({ name, base, overlay, env }) => {
        const health = await answeredHealth(await start(name, base, overlay, env));
        return [name, health.env, health.logLevel, health.automaticLearning];
      }),
    );
    assert.deepEqual(
      found,
      LAYERS.map(({ name, expected }) => [name, ...expected]),
    );
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
    // The rules are the container's own code: one mistake in a file and one in a variable show that it is asked.
    const [inFile, inVariable] = [MISTAKES[0]!, MISTAKES.at(-1)!];
    for (const { name, overlay, env, says } of [inFile, inVariable]) {
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
