// The pure half of the migration: what is understood of an older setup, what is planned, what becomes of each
// setting. A guess here would cost somebody a setting or a directory.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type EngineContainer,
  legacyContainers,
  type MigrationFacts,
  type Mount,
  rebuildCompose,
  understand,
} from '../../tasks/lib/migrate/detect.ts';
import { planMigration, planProblems } from '../../tasks/lib/migrate/plan.ts';
import {
  type OldSetting,
  settingsOfJson,
  settingsOfVariables,
  translateSettings,
} from '../../tasks/lib/migrate/settings.ts';
import { withEntry } from '../../tasks/lib/migrate/steps.ts';
import { compareInventories } from '../../tasks/lib/migrate/verify.ts';
import { loadProject } from '../../tasks/lib/project.ts';
import { migrate } from '../../tasks/lib/project-schema.ts';

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

function container(changes: Partial<EngineContainer> = {}): EngineContainer {
  return {
    id: 'c1',
    name: 'rag-mcp',
    isRunning: true,
    image: 'rag-mcp:latest',
    imageId: 'sha256:1',
    labels: { 'com.docker.compose.project': 'pi-rag', 'com.docker.compose.service': 'rag-mcp' },
    environment: ['PATH=/bin', 'RAG_LOG_LEVEL=INFO', 'RAG_PRICE=$5'],
    mounts: [DATA, MODELS],
    ports: [{ host: 8002, container: '8002/tcp', address: '' }],
    networks: ['pi-rag_default'],
    restart: 'no',
    command: ['python', 'server.py'],
    entrypoint: null,
    user: '',
    memory: 0,
    nanoCpus: 0,
    ...changes,
  };
}

test('a container is taken for the older setup by what it does, never by its name alone', () => {
  const found = (...containers: EngineContainer[]) =>
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
    chunk_size: 'RAG_CHUNK_SIZE of environment beats it',
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

test('a secret is never carried into a file, whatever the table says', () => {
  const careless = migrate.parse({ ...description, settings: { api_key: { to: 'log.level' } } });
  const [one] = translateSettings(careless, KNOWN, settingsOfJson('f', { api_key: 'abc' }));
  assert.deepEqual([one?.outcome, one?.target], ['dropped', undefined]);
});

function facts(changes: Partial<MigrationFacts> = {}): MigrationFacts {
  return {
    now: new Date('2026-01-31T23:59:58Z'),
    legacy: {
      service: 'rag-mcp',
      project: 'pi-rag',
      composeFiles: ['/home/me/docker-compose.mcp.yml'],
      directory: '/home/me',
      isRebuilt: false,
      state: 'running',
      container: 'rag-mcp',
      image: 'rag-mcp:latest',
      ports: [8002],
      data: { source: '/opt/pi-rag/data', path: '/opt/synapse/data' },
      models: 'old-models',
      readOnlyMounts: [],
      network: { name: 'pi-rag_default', subnets: ['172.22.0.0/16'] },
      evidence: [],
    },
    answered: true,
    healthPath: '/health',
    data: { bytes: 1e9, owner: { uid: 0, gid: 0, mode: 0o755 }, isMount: false, mayMove: true },
    target: { path: '/opt/synapse/data', entries: 3, owner: { uid: 0, gid: 0, mode: 0o755 } },
    room: [
      { what: 'copy', place: '/opt/synapse', filesystem: '1', free: 3e9 },
      { what: 'backup', place: '/opt/synapse/backups', filesystem: '1', free: 3e9 },
    ],
    backups: '/opt/synapse/backups',
    ports: { dev: { port: 8003, holder: undefined }, prod: { port: 8002, holder: undefined } },
    variables: {
      subnet: 'SYNAPSE_SUBNET',
      data: 'SYNAPSE_DATA_DIR',
      port: { dev: 'SYNAPSE_DEV_PORT', prod: 'SYNAPSE_PROD_PORT' },
    },
    subnets: {
      wanted: ['172.22.0.0/16'],
      free: '172.31.0.0/16',
      ownNetworks: ['synapse-net'],
      networks: [
        {
          name: 'pi-rag_default',
          driver: 'bridge',
          labels: {},
          subnets: ['172.22.0.0/16'],
          gateways: [],
          containers: [],
        },
      ],
    },
    models: {
      wanted: 'synapse-models',
      exists: false,
      old: { name: 'old-models', driver: 'local', labels: {} },
      canReuse: true,
      bytes: 4e9,
      unreadable: 0,
      users: [],
    },
    running: [],
    neighbours: [],
    hasOldImage: true,
    inTheWay: [],
    ...changes,
  };
}

const problemsOf = (changes: Partial<MigrationFacts>) => {
  const all = facts(changes);
  return planProblems(all, planMigration(all)).map(({ code }) => code);
};

test('one place for old and new data: the old one is set aside; two places: it stays', () => {
  const { data, compose } = planMigration(facts());
  assert.equal(data.aside, '/opt/synapse/data.before-migration-20260131-235958');
  assert.deepEqual(compose, [
    { path: '/home/me/docker-compose.mcp.yml', deprecated: '/home/me/docker-compose.mcp.yml.deprecated' },
  ]);
  const two = planMigration(facts({ target: { path: '/srv/data', entries: undefined, owner: null } }));
  assert.deepEqual([two.data.aside, two.data.from, two.data.to], [null, '/opt/synapse/data', '/srv/data']);
});

test('the models volume is used as it is unless something speaks against it', () => {
  const by = (models: Partial<MigrationFacts['models']>) =>
    planMigration(facts({ models: { ...facts().models, ...models } })).models.by;
  assert.equal(by({}), 'reuse');
  assert.equal(by({ old: undefined }), 'none');
  assert.equal(by({ canReuse: false }), 'copy');
  assert.equal(by({ unreadable: 1 }), 'copy');
  assert.equal(by({ old: { name: 'old-models', driver: 'nfs', labels: {} } }), 'copy');
  assert.equal(
    by({ old: { name: 'old-models', driver: 'local', labels: { 'com.docker.compose.config-hash': 'x' } } }),
    'copy',
  );
});

test('what stands in the way is found before anything is touched', () => {
  assert.deepEqual(problemsOf({}), []);
  assert.deepEqual(
    problemsOf({ room: facts().room.map((one) => ({ ...one, free: 1.9e9 })) }),
    ['disk-full'],
    'two copies on one disk',
  );
  const apart = facts().room.map((one, index) => ({ ...one, free: 1.1e9, filesystem: String(index) }));
  assert.deepEqual(problemsOf({ room: apart }), [], 'one copy on each of two disks');
  assert.deepEqual(
    problemsOf({ ports: { ...facts().ports, dev: { port: 8003, holder: 'nginx (pid 3)' } } }),
    ['port-taken'],
  );
  const third = {
    name: 'third_net',
    driver: 'bridge',
    labels: { 'com.docker.compose.project': 'third' },
    subnets: ['172.22.5.0/24'],
    gateways: [],
    containers: [],
  };
  assert.deepEqual(problemsOf({ subnets: { ...facts().subnets, networks: [third] } }), ['subnet-taken']);
  assert.deepEqual(problemsOf({ data: { ...facts().data, isMount: true, mayMove: false } }), [
    'data-mount',
    'data-directory',
  ]);
  assert.deepEqual(problemsOf({ target: { path: '/srv/data', entries: 1, owner: null } }), ['data-exists']);
  assert.deepEqual(
    problemsOf({ running: ['synapse-prod'], neighbours: ['x'], hasOldImage: false, inTheWay: ['/a'] }),
    ['in-the-way', 'already-running', 'network-in-use', 'image-missing'],
  );
});

test('a rebuilt compose file says what the container was, without what its image says by itself', () => {
  const network = {
    name: 'pi-rag_default',
    driver: 'bridge',
    labels: { 'com.docker.compose.project': 'pi-rag', 'com.docker.compose.network': 'default' },
    subnets: ['172.22.0.0/16'],
    gateways: ['172.22.0.1'],
    containers: [],
  };
  const image = { environment: ['PATH=/bin'], command: ['python', 'server.py'], entrypoint: null };
  const text = rebuildCompose(container(), network, image);
  assert.deepEqual(JSON.parse(text), {
    name: 'pi-rag',
    services: {
      'rag-mcp': {
        image: 'rag-mcp:latest',
        container_name: 'rag-mcp',
        environment: ['RAG_LOG_LEVEL=INFO', 'RAG_PRICE=$$5'],
        ports: ['8002:8002/tcp'],
        volumes: [
          { type: 'bind', source: '/opt/pi-rag/data', target: '/app/data', read_only: false },
          { type: 'volume', source: 'pi-rag_rag-mcp-models', target: '/app/models', read_only: false },
        ],
        restart: 'no',
        networks: ['default'],
      },
    },
    volumes: { 'pi-rag_rag-mcp-models': { name: 'pi-rag_rag-mcp-models', external: true } },
    networks: {
      default: {
        name: 'pi-rag_default',
        driver: 'bridge',
        ipam: { config: [{ subnet: '172.22.0.0/16', gateway: '172.22.0.1' }] },
      },
    },
  });
});

test('data that is not what it was is told apart from what clients have written since', () => {
  const table = (rows: number, sha256: string, recent = 0) => ({ columns: ['a'], rows, recent, sha256 });
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
  const entry = '### Migrated from rag-mcp (2026-01-31)\n\n- it was';
  const edited = withEntry(notes, 'v1.0.0', entry);
  assert.equal(edited, notes.replace('- first\n', `- first\n\n${entry}\n`));
  assert.equal(withEntry(edited, 'v1.0.0', entry), edited);
  assert.match(withEntry('', undefined, entry), /^# Release notes\n\n### Migrated/);
});
