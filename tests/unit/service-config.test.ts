// The layered loader: each layer wins over the next, each value knows its layer, and every way of getting
// a file or a variable wrong has its own message. Runs without an engine, on the tasks' Node.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ConfigError, effectiveValues, loadConfig, type Problem } from '../../service/config/config.ts';
import { variableName } from '../../service/config/sources.ts';
import { DATA_FORMAT } from '../../service/stores/format.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A config folder with the given files; objects are written as JSON, strings as they are. */
function configFolder(files: Record<string, object | string>): (name: string) => string {
  const folder = mkdtempSync(join(tmpdir(), 'synapse-config-'));
  folders.push(folder);
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return (name) => join(folder, name);
}

function problemsOf(configPath: string, env: Record<string, string> = {}): readonly Problem[] {
  try {
    loadConfig({ configPath, env });
  } catch (error) {
    assert(error instanceof ConfigError);
    return error.problems;
  }
  return assert.fail('the configuration was accepted');
}

test('variable over environment file over base file over default, and each value names its layer', () => {
  const at = configFolder({
    'synapse.json': { log: { level: 'WARN' }, semantic: { chunk_size: 900 }, metrics: { retention_days: 7 } },
    'synapse_prod.json': { log: { level: 'ERROR' }, semantic: { chunk_size: 800 } },
  });
  const env = { SYNAPSE_LOG__LEVEL: 'DEBUG' };
  const { config, origins } = loadConfig({ configPath: at('synapse_prod.json'), env });
  assert.equal(config.log.level, 'DEBUG');
  assert.equal(origins['log.level'], 'environment variable SYNAPSE_LOG__LEVEL');
  assert.equal(config.semantic.chunk_size, 800);
  assert.equal(origins['semantic.chunk_size'], at('synapse_prod.json'));
  assert.equal(config.metrics.retention_days, 7);
  assert.equal(origins['metrics.retention_days'], at('synapse.json'));
  assert.equal(config.server.port, 8002);
  assert.equal(origins['server.port'], 'default');
});

test('variables are parsed by the type of their key', () => {
  const at = configFolder({ 'synapse.json': {} });
  const env = {
    SYNAPSE_SERVER__PORT: '9000',
    SYNAPSE_METRICS__ENABLED: 'false',
    SYNAPSE_SERVER__ALLOWED_HOSTS: 'pi.local, 192.168.1.20',
    SYNAPSE_AUTOMATIC_LEARNING__MODE: 'Aggressive',
  };
  const { config } = loadConfig({ configPath: at('synapse.json'), env });
  assert.equal(config.server.port, 9000);
  assert.equal(config.metrics.enabled, false);
  assert.deepEqual(config.server.allowed_hosts, ['pi.local', '192.168.1.20']);
  assert.equal(config.automatic_learning.mode, 'aggressive');
});

test('SYNAPSE_ENV and LOG_LEVEL are short names, and the long name of the same key wins', () => {
  const at = configFolder({ 'synapse.json': {} });
  const short = { SYNAPSE_ENV: 'prod', LOG_LEVEL: 'debug' };
  const { config, origins } = loadConfig({ configPath: at('synapse.json'), env: short });
  assert.equal(config.environment, 'prod');
  assert.equal(config.log.level, 'DEBUG');
  assert.equal(origins['log.level'], 'environment variable LOG_LEVEL');
  const both = loadConfig({ configPath: at('synapse.json'), env: { ...short, SYNAPSE_LOG__LEVEL: 'ERROR' } });
  assert.equal(both.config.log.level, 'ERROR');
});

test('the configuration files of the Python server are accepted: logging.level is log.level', () => {
  const seed = { logging: { level: 'DEBUG' }, automatic_learning: { enabled: false, mode: 'aggressive' } };
  const at = configFolder({ 'synapse.json': { log: { level: 'WARN' } }, 'synapse_dev.json': seed });
  const { config, origins } = loadConfig({ configPath: at('synapse_dev.json') });
  assert.equal(config.log.level, 'DEBUG');
  assert.equal(origins['log.level'], at('synapse_dev.json'));
  assert.deepEqual(config.automatic_learning, { enabled: false, mode: 'aggressive' });
  const env = { SYNAPSE_LOGGING__LEVEL: 'error', SYNAPSE_AUTOMATIC_LEARNING__ENABLED: 'true' };
  const changed = loadConfig({ configPath: at('synapse_dev.json'), env }).config;
  assert.deepEqual([changed.log.level, changed.automatic_learning.enabled], ['ERROR', true]);
});

test('an empty variable counts as not set, and the variables of the image are no keys', () => {
  const at = configFolder({ 'synapse.json': {} });
  const env = {
    LOG_LEVEL: '',
    SYNAPSE_SERVER__PORT: '',
    SYNAPSE_TOKEN: 'secret',
    SYNAPSE_VERSION: 'v1.0.0',
    SYNAPSE_REVISION: 'abc',
    SYNAPSE_CONFIG_PATH: at('synapse.json'),
    PATH: '/bin',
  };
  assert.equal(loadConfig({ env }).config.server.port, 8002);
});

/** What is wrong in synapse.json or a variable, and the problems: place, key path, message, hint. */
const REFUSED: [name: string, base: object | string, env: Record<string, string>, problems: RegExp[]][] = [
  [
    'an unknown key',
    '{\n  "automatic_learning": {\n    "mod": "moderate"\n  }\n}\n',
    {},
    [/synapse\.json:3:5 automatic_learning\.mod: unknown key, did you mean "automatic_learning\.mode"\?$/],
  ],
  ['a key in the wrong section', { chunk_size: 500 }, {}, [/did you mean "semantic\.chunk_size"\?$/]],
  [
    'a wrong type',
    { server: { port: 'http', allowed_hosts: [1] }, metrics: true },
    {},
    [
      / server\.port: expected number.*the value is "http"$/,
      / server\.allowed_hosts\.0: expected string/,
      / metrics: expected an object, found boolean$/,
    ],
  ],
  [
    'a value out of bounds or outside its choices',
    { server: { port: 70000 }, log: { level: 'DEBUGG' } },
    {},
    [/<=65535; the value is 70000$/, /did you mean "DEBUG"\?$/],
  ],
  [
    'an alias with a wrong value, beside an unknown key',
    { logging: { level: 'LOUD', levl: 1 } },
    {},
    [/ log\.level: expected one of "DEBUG"\|"INFO"\|"WARN"\|"ERROR"/, / logging\.levl: unknown key/],
  ],
  [
    'an alias beside its key',
    { log: { level: 'INFO' }, logging: { level: 'DEBUG' } },
    {},
    [/given twice, also as log\.level$/],
  ],
  [
    'values that only contradict each other across layers, at the higher one,',
    { semantic: { chunk_size: 500, chunk_overlap: 100 } },
    { SYNAPSE_SEMANTIC__CHUNK_OVERLAP: '500' },
    [/^environment variable SYNAPSE_SEMANTIC__CHUNK_OVERLAP semantic\.chunk_overlap: /],
  ],
  [
    'a misspelt variable and one of the wrong type',
    {},
    { SYNAPSE_SERVER__PRT: '1', SYNAPSE_SERVER__PORT: 'many', SYNAPSE_CONFIG_PAHT: 'x' },
    [
      /expected number.*"many"$/,
      /did you mean "SYNAPSE_SERVER__PORT"\?$/,
      /did you mean "SYNAPSE_CONFIG_PATH"\?$/,
    ],
  ],
  ['a key given twice', '{"log": {"level": "INFO", "level": "DEBUG"}}', {}, [/given twice$/]],
  ['a missing comma', '{\n  "log": {}\n  "metrics": {}\n}', {}, [/json:3:3 .*comma expected$/]],
  ['a comment', '{\n  // no\n}', {}, [/json:2:3 .*comment/]],
  ['a trailing comma', '{ "log": {}, }', {}, [/json:1:14 .*expected$/]],
  ['a file cut off in the middle', '{ "log": {', {}, [/json:1:11 .*close brace expected$/]],
  ['an empty file', '', {}, [/json:1:1 .*value expected$/]],
  ['a list', '[]', {}, [/json:1:1 .*expected a JSON object/]],
];

for (const [name, base, env, expected] of REFUSED) {
  test(`${name} is refused, with its place and what would be valid`, () => {
    const problems = problemsOf(configFolder({ 'synapse.json': base })('synapse.json'), env);
    assert.equal(problems.length, expected.length, JSON.stringify(problems));
    problems.forEach(({ where, path, message, hint }, index) => {
      assert.match(`${where} ${path}: ${message}${hint ? `, ${hint}` : ''}`, expected[index]!);
    });
  });
}

test('a missing base or environment file is refused', () => {
  const alone = configFolder({ 'synapse_prod.json': {} });
  assert.equal(problemsOf(alone('synapse_prod.json'))[0]?.where, alone('synapse.json'));
  const base = configFolder({ 'synapse.json': {} });
  const [problem] = problemsOf(base('synapse_prod.json'));
  assert.equal(problem?.where, base('synapse_prod.json'));
  assert.match(problem.message, /no such file/);
});

test('all problems of all layers are reported at once, in one readable message', () => {
  const at = configFolder({ 'synapse.json': { lgo: {} }, 'synapse_dev.json': '{ oops' });
  try {
    loadConfig({ configPath: at('synapse_dev.json'), env: { LOG_LEVEL: 'LOUD' } });
    assert.fail('accepted');
  } catch (error) {
    assert(error instanceof ConfigError);
    assert.equal(error.problems.length, 3);
    assert.match(
      error.message,
      /3 problems\n.*synapse\.json:1:2: lgo: unknown key\n {4}hint: did you mean "log"\?/,
    );
  }
});

test('the shipped files are valid, and an overlay holds only what differs from the base', () => {
  const folder = join(root, 'configs');
  const base = loadConfig({ configPath: join(folder, 'synapse.json') });
  for (const [name, environment, level, mode] of [
    ['dev', 'dev', 'DEBUG', 'aggressive'],
    ['prod', 'prod', 'INFO', 'moderate'],
  ] as const) {
    const file = join(folder, `synapse_${name}.json`);
    const { config, origins } = loadConfig({ configPath: file });
    assert.equal(config.environment, environment);
    assert.equal(config.log.level, level);
    assert.equal(config.automatic_learning.mode, mode);
    const repeated = effectiveValues({ config, origins }).filter(
      ({ path, value, origin }) =>
        origin === file &&
        path !== 'environment' &&
        JSON.stringify(value) ===
          JSON.stringify(effectiveValues(base).find((other) => other.path === path)?.value),
    );
    assert.deepEqual(repeated, []);
  }
});

test('the JSON Schemas are what the loader checks, and a stale one fails the check', () => {
  const command = ['tasks/start.mjs', 'schemas', '--check'];
  const result = spawnSync(process.execPath, command, { cwd: root, encoding: 'utf8' });
  assert.equal(result.status, 0, result.stderr);
});

test('the image label names the data format of the code', () => {
  const dockerfile = readFileSync(join(root, 'Dockerfile'), 'utf8');
  assert.match(dockerfile, new RegExp(`org\\.synapse\\.data-format="${DATA_FORMAT}"`));
  assert.equal(variableName('server.port'), 'SYNAPSE_SERVER__PORT');
});
