// The pure half of the migration: what is understood of an older setup, what is planned, what becomes of each
// setting. A guess here would cost somebody a setting or a directory.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Mount } from '../../tasks/lib/docker/objects.ts';
import { understand } from '../../tasks/lib/migrate/detect.ts';
import { whyCopied } from '../../tasks/lib/migrate/plan.ts';
import { withEntry, withoutEntry } from '../../tasks/lib/migrate/report.ts';
import {
  type OldSetting,
  settingsOfJson,
  settingsOfVariables,
  translateSettings,
  verifyOpening,
} from '../../tasks/lib/migrate/settings.ts';
import { compareInventories } from '../../tasks/lib/migrate/verify.ts';
import { loadProject } from '../../tasks/lib/project.ts';
import { migrate } from '../../tasks/lib/project-schema.ts';
import { findEntry } from '../../tasks/lib/release/notes.ts';
import { legacyContainers } from '../../tasks/lib/setup/legacy.ts';

const description = (await loadProject()).migrate!;

const bind = (source: string, target: string, isReadOnly = false): Mount => ({
  type: 'bind',
  source,
  target,
  isReadOnly,
});
const volume = (source: string, target: string): Mount => ({
  type: 'volume',
  source,
  target,
  isReadOnly: false,
});
const DATA = bind('/opt/pi-rag/data', '/app/data');
const MODELS = volume('pi-rag_rag-mcp-models', '/app/models');

function container(changes: object = {}) {
  return {
    name: 'rag-mcp',
    image: 'rag-mcp:latest',
    labels: { 'com.docker.compose.project': 'pi-rag', 'com.docker.compose.service': 'rag-mcp' },
    mounts: [DATA, MODELS],
    ...changes,
  };
}

test('a container is taken for the older setup by what it does, never by its name alone', () => {
  const found = (...containers: ReturnType<typeof container>[]) =>
    legacyContainers(description, containers, 'synapse').map(({ name }) => name);
  const stranger = { image: 'nginx:1', labels: {}, mounts: [] };
  assert.deepEqual(found(container({ name: 'anything' })), ['anything']);
  assert.deepEqual(found(container(stranger)), [], 'it is only called so');
  assert.deepEqual(found(container({ labels: {}, mounts: [MODELS] })), [], 'it shares image and models');
  assert.deepEqual(
    found(container({ labels: {}, image: 'me/rag-mcp@sha256:1' })),
    ['rag-mcp'],
    'image, data and models',
  );
  assert.deepEqual(
    found(
      container({
        labels: { 'com.docker.compose.project': 'synapse', 'com.docker.compose.service': 'rag-mcp' },
      }),
    ),
    [],
  );
});

test('what a shape has beyond the description is said, all of it', () => {
  const shape = {
    image: 'rag-mcp',
    mounts: [DATA, MODELS, bind('/etc/rag', '/app/configs', true)],
    ports: [8003],
    networks: ['n'],
  };
  const understood = understand(description, shape);
  assert.ok(!Array.isArray(understood));
  assert.deepEqual(understood, {
    ports: [8003],
    models: MODELS.source,
    readOnlyMounts: ['/etc/rag'],
    data: DATA.source,
    network: 'n',
  });
  const odd = understand(description, {
    ...shape,
    mounts: [MODELS, bind('/srv/x', '/srv')],
    ports: [],
    networks: ['a', 'b'],
  });
  assert.ok(Array.isArray(odd));
  assert.deepEqual(
    odd.map(({ message }) => message),
    [
      'Not understood: no directory of this machine is mounted on /app/data',
      'Not understood: it writes to the bind /srv/x on /srv',
      'Not understood: it publishes no port',
      'Not understood: it is in several networks: a, b',
    ],
  );
});

const KNOWN = new Map<string, unknown>([
  ['semantic.chunk_size', 1200],
  ['sqlite.busy_timeout_ms', 10000],
  ['log.level', 'INFO'],
  ['automatic_learning.mode', 'moderate'],
  ['metrics.enabled', true],
  ['server.allowed_hosts', []],
]);
const translate = (settings: OldSetting[]) => translateSettings(description, KNOWN, settings);

test('every old key is accounted for: carried, renamed, or dropped because of something', () => {
  const file = settingsOfJson('rag_config.json', {
    chunk_size: 900,
    metrics: { enabled: 'false' },
    embedding: { model: 'x', dimension: 384 },
    log_level: 'warning',
    sqlite_timeout: 30,
    unheard: null,
    allowed_hosts: 'pi.local, nas',
  });
  const variables = settingsOfVariables('environment', 'RAG_', {
    RAG_CHUNK_SIZE: '700',
    PATH: '/bin',
    RAG_API_KEY: 'abc',
    RAG_HF_TOKEN: 'xyz',
  });
  const outcomes = translate([...file, ...variables]);
  const told = Object.fromEntries(
    outcomes.map((one) => [one.key, one.outcome === 'dropped' ? one.reason : [one.outcome, one.value]]),
  );
  assert.deepEqual(told, {
    chunk_size: 'RAG_CHUNK_SIZE of environment overrides it',
    'metrics.enabled': ['carried', false],
    'embedding.model': 'documents are found by full text here, without embeddings',
    'embedding.dimension': 'documents are found by full text here, without embeddings',
    log_level: ['renamed', 'WARN'],
    sqlite_timeout: ['renamed', 30000],
    unheard: 'there is no such setting here',
    allowed_hosts: ['renamed', ['pi.local', 'nas']],
    RAG_CHUNK_SIZE: ['renamed', 700],
    RAG_API_KEY: ['renamed', 'abc'],
    RAG_HF_TOKEN: 'there is no such secret here',
  });
  const secret = outcomes.find(({ key }) => key === 'RAG_API_KEY')!;
  assert.deepEqual(
    [secret.isSecret, secret.target],
    [true, { variable: 'TOKEN' }],
    'a secret goes to .env alone',
  );
});

test("upstream's own settings: carried by their real names, prod stays moderate, max_tokens is no secret", () => {
  const known = new Map<string, unknown>([
    ...KNOWN,
    ['uploads.max_bytes', 20971520],
    ['uploads.expiry_minutes', 60],
    ['automatic_learning.enabled', true],
  ]);
  const file = settingsOfJson('rag_config.json', {
    remote_upload_max_file_size_mb: 50,
    remote_upload_max_age_seconds: 5400,
    remote_upload_directory: '/tmp/rag-uploads',
    logging: { level: 'DEBUG' },
    automatic_learning: { enabled: false, mode: 'aggressive', track_tasks: true },
    max_tokens: 2048,
    chat_n_ctx: 8192,
    external_chat_api_key: 'sk-1234567',
    memory_max_facts: 10,
  });
  const variables = settingsOfVariables('environment', 'RAG_', {
    RAG_UPLOAD_MAX_SIZE: '40',
    RAG_REMOTE_UPLOAD_ENABLED: 'true',
    RAG_MAX_TOKENS: '1024',
  });
  const outcomes = translateSettings(description, known, [...file, ...variables]);
  const carried = outcomes.filter(({ outcome }) => outcome !== 'dropped');
  assert.deepEqual(
    carried.map(({ key, target, value }) => [key, target?.file, target?.path, value]),
    [
      ['remote_upload_max_age_seconds', 'base', 'uploads.expiry_minutes', 90],
      ['logging.level', 'base', 'log.level', 'DEBUG'],
      ['automatic_learning.enabled', 'base', 'automatic_learning.enabled', false],
      ['RAG_UPLOAD_MAX_SIZE', 'base', 'uploads.max_bytes', 41943040],
    ],
  );
  const reason = (wanted: string) => outcomes.find(({ key }) => key === wanted)?.reason ?? '';
  assert.match(reason('automatic_learning.mode'), /dev learns aggressively and prod moderately/);
  assert.match(reason('remote_upload_max_file_size_mb'), /RAG_UPLOAD_MAX_SIZE of environment overrides it/);
  assert.deepEqual(
    outcomes.filter(({ isSecret }) => isSecret).map(({ key }) => key),
    ['external_chat_api_key'],
  );
  for (const { key, reason } of outcomes)
    assert.notEqual(reason, 'there is no such setting here', `${key}: upstream has it, say why it goes`);
});

test('a name that only looks like a secret is none, and one that is stays hidden', () => {
  const names = {
    secret: ['RAG_API_TOKEN', 'hf_token', 'db.password', 'api_key', 'apiKey', 'SECRET', 'ssh_private_key'],
    plain: ['max_tokens', 'token_limit', 'tokens_per_chunk', 'n_tokens', 'keyword', 'rag_disable_keyword'],
  };
  for (const [kind, keys] of Object.entries(names))
    for (const key of keys) {
      const [one] = translate(settingsOfJson('f', { [key]: 'x' }));
      assert.equal(one?.isSecret, kind === 'secret', key);
    }
});

test('what was open to the network stays open only with a token, and only where its health can be asked', async () => {
  const project = await loadProject();
  const open = { SYNAPSE_BIND_ADDRESS: '0.0.0.0' };
  const token = { SYNAPSE_TOKEN: 'x' };
  type Variables = Record<string, string>;
  const cases: [address: string, variables: Variables, refused?: RegExp | undefined, dotenv?: Variables][] = [
    ['0.0.0.0', { ...open, ...token }, undefined],
    ['::', { ...open, ...token }, undefined],
    ['0.0.0.0', open, undefined, token],
    ['0.0.0.0', open, /answers the network on 0\.0\.0\.0 without a token/],
    ['::', open, /answers the network on :: without a token/],
    ['0.0.0.0', {}, undefined],
    ['192.168.1.5', { ...open, ...token }, /listens on 192\.168\.1\.5 alone/],
  ];
  for (const [address, variables, refused, dotenv = {}] of cases) {
    const settings = { outcomes: [], files: {}, variables };
    const verify = () => verifyOpening({ ...project, dotenv }, { address }, settings);
    if (refused) assert.throws(verify, { code: 'exposed', message: refused });
    else verify();
  }
});

test('a secret is never carried into a file, whatever the table says', () => {
  const careless = migrate.parse({ ...description, settings: { api_key: { to: 'log.level' } } });
  const [one] = translateSettings(careless, KNOWN, settingsOfJson('f', { api_key: 'abc' }));
  assert.deepEqual([one?.outcome, one?.target], ['dropped', undefined]);
});

test('the models volume is used as it is unless something speaks against it', () => {
  const old = { name: 'old-models', driver: 'local', labels: {} };
  const cases: [what: Parameters<typeof whyCopied>, why: RegExp | undefined][] = [
    [[old, true, 0], undefined],
    [[old, false, 0], /cannot name another volume/],
    [[old, true, 1], /may not read 1 of its files/],
    [[{ ...old, driver: 'nfs' }, true, 0], /its driver is nfs/],
    [[{ ...old, labels: { 'com.docker.compose.config-hash': 'x' } }, true, 0], /recreate it/],
  ];
  for (const [what, why] of cases) {
    const found = whyCopied(...what);
    assert.ok(why ? why.test(found ?? '') : found === undefined, `${why}: ${found}`);
  }
});

test('data that is not what it was is told apart from what clients have written since', () => {
  const table = (rows: number, hash: string, recent = 0) => ({ columns: ['a'], rows, recent, hash });
  const before = {
    databases: { 'm.db': { t: table(3, 'x') }, 'p.db': { t: table(9, 'y') } },
    files: { a: '1:h' },
  };
  const after = (changes: object, files: Record<string, string> = { a: '1:h' }) => ({
    databases: { ...before.databases, 'm.db': changes as never },
    files,
  });
  const compare = (now: Parameters<typeof compareInventories>[1], pruned: string[] = []) =>
    compareInventories(before, now, pruned);
  assert.deepEqual(compare(after({ t: table(3, 'x') })), {
    databases: 2,
    tables: 2,
    rows: 12,
    files: 1,
    written: [],
    problems: [],
  });
  assert.deepEqual(compare(after({ t: table(5, 'x', 2) })).written, ['m.db, table t']);
  assert.deepEqual(compare(after({ t: table(3, 'z') })).problems, [
    'm.db, table t has other content than before',
  ]);
  assert.deepEqual(compare(after({ t: table(2, 'z', 1) })).problems, ['m.db, table t had 3 rows and has 2']);
  assert.deepEqual(compare(after({})).problems, ['m.db, table t is gone']);
  assert.deepEqual(compare(after({ t: table(3, 'x') }, {})).problems, ['a is gone']);
  assert.deepEqual(compare(after({}), ['m.db']).problems, [], 'that one may lose what is old');
});

test('the notes entry lies under its release, once, and leaves every other byte', () => {
  const notes =
    '# Release notes\n\n## [v1.0.0] - 2026-01-01\n\n- first\n\n## [v0.9.0] - 2025-01-01\n\n- older\n';
  const entry = '## Migrated from rag-mcp (2026-01-31)\n\n- it was';
  const edited = withEntry(notes, 'v1.0.0', entry);
  assert.equal(edited, notes.replace('- first\n', `- first\n\n${entry}\n`));
  assert.equal(withEntry(edited, 'v1.0.0', entry), edited);
  assert.equal(withoutEntry(edited, entry), notes, 'a rollback takes it out again');
  const later = edited.replace(
    '# Release notes\n',
    '# Release notes\n\n## [v1.1.0] - 2026-02-01\n\n- later\n',
  );
  assert.match(withoutEntry(later, entry), /v1\.1\.0.*- later.*- first/s, 'and nothing else');
  assert.doesNotMatch(findEntry(edited, 'v1.0.0')!.text, /Migrated/, 'it is not a part of the release');
  assert.match(withEntry('', undefined, entry), /^# Release notes\n\n## Migrated/);
});
