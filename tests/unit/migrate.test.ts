// The pure half of the migration: what is understood of an older setup, what is planned, what becomes of each
// setting. A guess here would cost somebody a setting or a directory.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Mount } from '../../tasks/lib/docker/objects.ts';
import { legacyProblems } from '../../tasks/lib/migrate/detect.ts';
import { whyCopied } from '../../tasks/lib/migrate/plan.ts';
import { withEntry, withoutEntry } from '../../tasks/lib/migrate/report.ts';
import {
  type OldSetting,
  openingProblems,
  settingsOfJson,
  translateSettings,
} from '../../tasks/lib/migrate/settings.ts';
import { compareInventories } from '../../tasks/lib/migrate/verify.ts';
import { loadProject } from '../../tasks/lib/project.ts';
import { findEntry } from '../../tasks/lib/release/notes.ts';
import { legacyContainers } from '../../tasks/lib/setup/data-directory.ts';

const project = await loadProject();
const description = project.migrate!;

const mount = (type: string, source: string, target: string, isReadOnly = false): Mount => ({
  ...{ type, source, target, isReadOnly },
});
const DATA = mount('bind', '/opt/pi-rag/data', '/app/data');
const MODELS = mount('volume', 'pi-rag_rag-mcp-models', '/app/models');

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
    'image and data',
  );
  const own = { 'com.docker.compose.project': 'synapse', 'com.docker.compose.service': 'rag-mcp' };
  assert.deepEqual(found(container({ labels: own })), []);
});

test('what a container has beyond the description is said, all of it', () => {
  const known = {
    name: 'rag-mcp',
    labels: { 'com.docker.compose.project.config_files': '/opt/pi-rag/docker-compose.mcp.yml' },
    mounts: [DATA, MODELS, mount('bind', '/etc/rag', '/app/configs', true)],
    publishedPorts: [8003],
  };
  assert.deepEqual(legacyProblems(description, known, []), []);
  const odd = { ...known, labels: {}, mounts: [MODELS, mount('bind', '/srv/x', '/srv')], publishedPorts: [] };
  assert.deepEqual(legacyProblems(description, odd, ['redis']), [
    'rag-mcp was not started by docker compose',
    'there are more containers than rag-mcp, remove them first: redis',
    'no directory of this machine is mounted on /app/data',
    'it writes to the bind /srv/x on /srv',
    'it publishes no port',
  ]);
});

const translate = (settings: OldSetting[]) => translateSettings(project, settings);
const variables = (values: Record<string, string>): OldSetting[] =>
  Object.entries(values).map(([key, value]) => ({ origin: 'environment', key, value }));

test('every old key is accounted for: carried, renamed, or dropped because of something', () => {
  const file = settingsOfJson('rag_config.json', {
    chunk_size: 900,
    metrics: { enabled: 'false' },
    embedding: { model: 'x', dimension: 384 },
    log_level: 'warning',
    sqlite_timeout: 30,
    unheard: null,
    allowed_hosts: ['pi.local', 'nas'],
    chunk_overlap: 'many',
    automatic_learning: { enabled: true, mode: 'aggressive', track_tasks: true },
    remote_upload_max_file_size_mb: 50,
    remote_upload_max_age_seconds: 5400,
    max_tokens: 2048,
    external_chat_api_key: 'sk-1234567',
  });
  const outcomes = translate([
    ...file,
    ...variables({
      RAG_CHUNK_SIZE: '700',
      RAG_API_KEY: ' a#$b ',
      RAG_HF_TOKEN: 'xyz',
      RAG_UPLOAD_MAX_SIZE: '40',
    }),
  ]);
  const told = outcomes.map(({ key, outcome, reason, path, variable, value }) => [
    ...[key, ...(outcome === 'dropped' ? [reason] : [outcome, variable ?? path, value])],
  ]);
  assert.deepEqual(told, [
    ['chunk_size', 'RAG_CHUNK_SIZE of environment overrides it'],
    ['metrics.enabled', 'carried', 'metrics.enabled', false],
    ['embedding.model', 'documents are found by full text here, without embeddings'],
    ['embedding.dimension', 'documents are found by full text here, without embeddings'],
    ['log_level', 'renamed', 'SYNAPSE_PROD_LOG_LEVEL', 'WARN'],
    ['sqlite_timeout', 'renamed', 'sqlite.busy_timeout_ms', 30000],
    ['unheard', 'there is no such setting here'],
    ['allowed_hosts', 'renamed', 'server.allowed_hosts', ['pi.local', 'nas']],
    ['chunk_overlap', 'the new service refuses it: expected number, received string; the value is "many"'],
    ['automatic_learning.enabled', 'carried', 'automatic_learning.enabled', true],
    ['automatic_learning.mode', 'dev learns aggressively and prod moderately here'],
    ['automatic_learning.track_tasks', 'the mode alone says here what is recorded'],
    ['remote_upload_max_file_size_mb', 'RAG_UPLOAD_MAX_SIZE of environment overrides it'],
    ['remote_upload_max_age_seconds', 'renamed', 'uploads.expiry_minutes', 90],
    ['max_tokens', 'this service calls no chat model'],
    ['external_chat_api_key', 'this service calls no chat model'],
    ['RAG_CHUNK_SIZE', 'renamed', 'semantic.chunk_size', 700],
    ['RAG_API_KEY', 'renamed', 'SYNAPSE_TOKEN', ' a#$b '],
    ['RAG_HF_TOKEN', 'there is no such secret here'],
    ['RAG_UPLOAD_MAX_SIZE', 'renamed', 'uploads.max_bytes', 41943040],
  ]);
  const secrets = outcomes.filter(({ isSecret }) => isSecret).map(({ key }) => key);
  assert.deepEqual(secrets, ['external_chat_api_key', 'RAG_API_KEY', 'RAG_HF_TOKEN']);
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

test('what was open to the network stays open only with a token, and only where its health can be asked', () => {
  const open = { SYNAPSE_BIND_ADDRESS: '0.0.0.0' };
  const token = { SYNAPSE_TOKEN: 'x' };
  const cases: [address: string, variables: Record<string, string>, dotenv: object, refused: boolean][] = [
    ['0.0.0.0', { ...open, ...token }, {}, false],
    ['::', { ...open, ...token }, {}, false],
    ['0.0.0.0', open, token, false],
    ['0.0.0.0', open, {}, true],
    ['0.0.0.0', {}, {}, false],
    ['192.168.1.5', { ...open, ...token }, {}, true],
  ];
  for (const [address, variables, dotenv, refused] of cases) {
    const own = { ...project, dotenv: dotenv as Record<string, string> };
    const [problem] = openingProblems(own, { address }, { variables });
    assert.equal(problem?.code, refused ? 'exposed' : undefined, address);
  }
});

test('a secret is never carried into a file, whatever the table says', () => {
  const careless = { ...description, settings: { api_key: { to: 'log.level', values: {} } } };
  const [one] = translateSettings({ ...project, migrate: careless }, settingsOfJson('f', { api_key: 'abc' }));
  assert.deepEqual([one?.outcome, one?.path], ['dropped', undefined]);
});

test('the models volume is used as it is unless something speaks against it', () => {
  const old = { name: 'old-models', driver: 'local', labels: {} };
  const cases: [what: Parameters<typeof whyCopied>, why: RegExp | null][] = [
    [[old, true, 0], null],
    [[old, false, 0], /cannot name another volume/],
    [[old, true, 1], /may not read 1 of its files/],
    [[{ ...old, driver: 'nfs' }, true, 0], /its driver is nfs/],
    [[{ ...old, labels: { 'com.docker.compose.config-hash': 'x' } }, true, 0], /recreate it/],
  ];
  for (const [what, why] of cases) {
    const found = whyCopied(...what);
    assert.ok(why ? why.test(found ?? '') : found === null, `${why}: ${found}`);
  }
});

test('data that is not what it was is told apart from what clients have written since', () => {
  const table = (rows: number, hash: string, recent = 0) => ({ columns: ['a'], rows, recent, hash });
  const [good, other] = [{ t: table(3, 'x') }, { 'p.db': { t: table(9, 'y') } }];
  const files: Record<string, string> = { a: '1:h' };
  const rows: [
    now: typeof good | object,
    files: object,
    pruned: string[],
    written: string[],
    problems: string[],
  ][] = [
    [good, files, [], [], []],
    [{ t: table(5, 'x', 2) }, files, [], ['m.db, table t'], []],
    [{ t: table(3, 'z') }, files, [], [], ['m.db, table t has other content than before']],
    [{ t: table(2, 'z', 1) }, files, [], [], ['m.db, table t had 3 rows and has 2']],
    [{}, files, [], [], ['m.db, table t is gone']],
    [{}, files, ['m.db'], [], []],
    [good, {}, [], [], ['a is gone']],
    [good, { a: '1:i' }, [], [], ['a has changed']],
  ];
  const before = { databases: { 'm.db': good, ...other }, files };
  for (const [now, left, pruned, ...expected] of rows) {
    const after = { databases: { 'm.db': now as typeof good, ...other }, files: left as typeof files };
    const { written, problems, rows, databases } = compareInventories(before, after, pruned);
    assert.deepEqual([written, problems, databases], [...expected, 2]);
    assert.equal(rows, pruned.length > 0 ? 9 : 12);
  }
});

test('the notes entry lies under its release, once, and leaves every other byte', () => {
  const notes = '# Release notes\n\n## [v1.0.0] - 2026-01-01\n\n- first\n\n## [v0.9.0]\n\n- older\n';
  const entry = '## Migrated from rag-mcp (2026-01-31)\n\n- it was';
  const edited = withEntry(notes, 'v1.0.0', entry);
  assert.equal(edited, notes.replace('- first\n', `- first\n\n${entry}\n`));
  assert.equal(withEntry(edited, 'v1.0.0', entry), edited);
  assert.equal(withoutEntry(edited, entry), notes, 'a rollback takes it out again');
  const later = edited.replace('# Release notes\n', '$&\n## [v1.1.0] - 2026-02-01\n\n- later\n');
  assert.match(withoutEntry(later, entry), /v1\.1\.0.*- later.*- first/s, 'and nothing else');
  assert.doesNotMatch(findEntry(edited, 'v1.0.0')!.text, /Migrated/, 'it is not a part of the release');
  assert.match(withEntry('', undefined, entry), /^# Release notes\n\n## Migrated/);
});
