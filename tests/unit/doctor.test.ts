// The doctor's judgements on machines that nobody has at hand: a Raspberry Pi without its memory cgroup, an old engine,
// a network file system, a route in the way. What would be lost: a machine that is called fit and is not.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import type { EngineInfo } from '../../tasks/lib/docker/engine.ts';
import { overlaps, parseRoutes } from '../../tasks/lib/docker/network.ts';
import { type Facts, findingOf, type Report } from '../../tasks/lib/doctor/check.ts';
import { LIVE_CHECKS } from '../../tasks/lib/doctor/live.ts';
import { judgeFileSystem, MACHINE_CHECKS } from '../../tasks/lib/doctor/machine.ts';
import { findSecrets, PROJECT_CHECKS } from '../../tasks/lib/doctor/project.ts';
import { loadProject } from '../../tasks/lib/project.ts';
import { REPOSITORY } from '../tasks/project.ts';

const CHECKS = [...MACHINE_CHECKS, ...PROJECT_CHECKS, ...LIVE_CHECKS];
const INFO: EngineInfo = {
  version: '26.1.5+dfsg1',
  architecture: 'aarch64',
  cpus: 4,
  memory: 8e9,
  cgroup: '2',
  limits: { memory: true, swap: true, cpu: true, pids: true },
  warnings: [],
  containerdStore: true,
  dataRoot: '/var/lib/docker',
};

type Change = Record<string, unknown> & { dotenv?: Record<string, string>; info?: Partial<EngineInfo> };

/** Facts of this very project on a well machine, with what a row changes. */
async function factsOf({ dotenv = {}, info = {}, ...change }: Change): Promise<Facts> {
  const limits = { deploy: { resources: { limits: { cpus: 3 } } } };
  const project = await loadProject(REPOSITORY, async () => dotenv);
  const service = { image: 'synapse:v1.0.0' };
  const answers = Object.entries({
    info: { ...INFO, ...info },
    containers: [{ name: 'synapse-prod', state: 'running', memoryLimit: 3e9 }],
    model: { services: { dev: limits, prod: limits }, networks: {} },
    services: { 'synapse-dev': service, 'synapse-prod': service },
    ask: { Architecture: 'arm64' },
    ...change,
  });
  const asked = answers.map(([name, value]) => [name, async () => value]);
  return { project: { ...project, root: '/nowhere' }, ...Object.fromEntries(asked) } as unknown as Facts;
}

const DIGEST = `sha256:${'1'.repeat(64)}`;
const older = (name: string) => ({ name, version: name.slice(1), commit: 'c1', digests: [] });
const released = (name: string, ...digests: string[]) => {
  const record = { digest: DIGEST, platforms: {} };
  return { ...older(name), record, digests: [DIGEST, ...digests], isRebuilt: digests.length > 0 };
};
const local = (...names: string[]) => ({ id: DIGEST, names, labels: {} });
const listening = (address: string, token = '') => ({
  'synapse-prod': {
    publishes: [{ address, published: 8002, target: 8002 }],
    environment: { SYNAPSE_TOKEN: token },
  },
});
const running = (address: string) => ({
  ...{ service: 'synapse-prod', state: 'running', publishedAddresses: [`${address}:8002`] },
});
const PROD = { SYNAPSE_PROD_TAG: 'v1.0.0' };
const OPENING = /SYNAPSE_TOKEN=.*\nSYNAPSE_BIND_ADDRESS=[\d.]+\n.*SYNAPSE_BIND_ADDRESS=127\.0\.0\.1$/;
const PRUNED = { images: [], releases: [released('v1.0.0')], ask: undefined };
const { limits } = INFO;

const rows: [id: string, verdict: string, change: Change, detail: RegExp, remedy?: RegExp][] = [
  ['engine', 'ok', {}, /engine 26/],
  ['engine', 'failed', { info: { version: '20.10.24' } }, /expected 25 or newer/, /docs\.docker\.com/],
  ['cgroup', 'ok', { info: { cgroup: '1' } }, /version 1/],
  [
    'cgroup',
    'failed',
    { info: { limits: { ...limits, cpu: false, pids: false } } },
    /CPU quota, process count/,
  ],
  ['memory-limits', 'ok', {}, /synapse-prod 3\.0 GB/],
  [
    'memory-limits',
    'failed',
    { info: { limits: { ...limits, memory: false } } },
    /does not enforce memory limits/,
    /cgroup_enable=memory cgroup_memory=1.*cmdline\.txt/,
  ],
  [
    'memory-limits',
    'warning',
    { containers: [{ name: 'app', state: 'running', memoryLimit: 0 }] },
    /app has no memory limit/,
    /limits\.memory/,
  ],
  ['cpus', 'ok', {}, /4/],
  ['cpus', 'failed', { info: { cpus: 2 } }, /dev wants 3 CPUs, the engine has 2/, /npm run setup/],
  ['architecture', 'ok', {}, /arm64/],
  [
    'architecture',
    'failed',
    { ask: { Architecture: 'amd64' } },
    /synapse:v1\.0\.0 is for amd64, this engine runs arm64/,
    /npm run build-push -- v1\.0\.0/,
  ],
  ['exposure', 'ok', { services: listening('127.0.0.1') }, /^prod 127\.0\.0\.1:8002$/],
  ['exposure', 'ok', { services: listening('::1') }, /^prod ::1:8002$/],
  [
    'exposure',
    'failed',
    { services: listening('') },
    /^prod .*0\.0\.0\.0:8002: SYNAPSE_TOKEN is not set$/,
    OPENING,
  ],
  ['exposure', 'failed', { services: listening('192.168.1.5') }, /192\.168\.1\.5:8002/, OPENING],
  ['exposure', 'ok', { services: listening('0.0.0.0', 'long-enough') }, /^prod 0\.0\.0\.0:8002$/],
  [
    'exposure',
    'warning',
    { services: listening('0.0.0.0', 'long-enough'), containers: [running('127.0.0.1')] },
    /^prod listens on 127\.0\.0\.1:8002 until it is replaced; \.env says 0\.0\.0\.0:8002$/,
    /^apply it: npm run switch -- prod$/,
  ],
  ['images', 'ok', { images: [], releases: [] }, /none yet/],
  [
    'images',
    'ok',
    { images: [local('synapse:v1.0.0', 'synapse:latest')], releases: [released('v1.0.0')], dotenv: PROD },
    /v1\.0\.0/,
  ],
  // After `docker system prune -af`.
  [
    'images',
    'failed',
    { ...PRUNED, dotenv: { ...PROD, SYNAPSE_BASE_IMAGE: 'synapse-node:24' } },
    /base image synapse-node:24 .*\nimage synapse:v1\.0\.0, which \.env names for prod, .*\nimage synapse:latest/,
    /^npm run setup\nnpm run build-push -- v1\.0\.0\nnpm run build-push -- latest$/,
  ],
  ['releases', 'ok', { images: [], releases: [older('v3.2.0')] }, /no release yet; 1 tags from before/],
  [
    'releases',
    'failed',
    { images: [], releases: [older('v1.0.0')], dotenv: PROD },
    /git tag v1\.0\.0 is not the release's/,
    /^(?!.*tag -d).*git fetch --tags --force/,
  ],
  // Its notes are missing, too.
  [
    'releases',
    'failed',
    { images: [{ ...local('synapse:v1.0.0'), id: 'rebuilt' }], releases: [released('v1.0.0', 'rebuilt')] },
    /synapse:v1\.0\.0 was built again here/,
    /docker save synapse:v1\.0\.0 .*docker load.*new release/,
  ],
  ['health', 'ok', { containers: [] }, /none is active/],
];
for (const [id, verdict, change, detail, remedy] of rows) {
  test(`${id}, ${verdict}: ${detail.source}`, async () => {
    const finding = await findingOf(CHECKS.find((check) => check.id === id)!, await factsOf(change));
    assert.equal(finding.verdict, verdict, finding.detail);
    assert.match(finding.detail, detail);
    if (remedy) assert.match(finding.remedy ?? '', remedy);
  });
}

test('every check has a name of its own', () => {
  assert.equal(new Set(CHECKS.map(({ id }) => id)).size, CHECKS.length);
});

/** The finding of a check that reports this. */
function found(reportTo: (report: Report) => void) {
  const look = async (_: Facts, report: Report) => {
    reportTo(report);
    return 'fine';
  };
  return findingOf({ look }, {} as Facts);
}

test('several problems of one check: the worst decides, each remedy is given once', async () => {
  const problems = await found(({ warn, fail }) => {
    warn('a', 'x');
    fail('b', 'y');
    warn('c', 'x');
  });
  assert.deepEqual(problems, { verdict: 'failed', detail: 'a\nb\nc', remedy: 'x\ny' });
  assert.deepEqual(await found(() => {}), { verdict: 'ok', detail: 'fine' });
});

const fileSystems: [type: string, verdict: string, what: RegExp][] = [
  ['ext2/ext3', 'ok', /suitable for SQLite/],
  ['btrfs', 'ok', /suitable for SQLite/],
  ['nfs', 'failed', /nfs: locks over a network/],
  ['cifs', 'failed', /cifs/],
  ['smb2', 'failed', /smb2/],
  ['v9fs', 'failed', /v9fs/],
  ['fuseblk', 'failed', /fuseblk/],
  ['tmpfs', 'failed', /tmpfs: it is in memory/],
  ['overlayfs', 'warning', /overlayfs: it is removed with the container/],
];
for (const [type, verdict, what] of fileSystems) {
  test(`file system ${type}: ${verdict}`, async () => {
    const finding = await found((report) => judgeFileSystem(type, '/data', 'APP_DATA_DIR', report));
    const { detail } = verdict === 'ok' ? { detail: 'suitable for SQLite' } : finding;
    assert.equal(finding.verdict, verdict);
    assert.match(detail, what);
  });
}

const pairs: [one: string, other: string, overlap: boolean][] = [
  ['172.22.0.0/16', '172.22.5.0/24', true],
  ['172.22.5.0/24', '172.22.0.0/16', true],
  ['172.22.0.0/16', '172.23.0.0/16', false],
  ['172.16.0.0/12', '172.22.0.0/16', true],
  ['10.0.0.0/25', '10.0.0.128/25', false],
  ['10.0.0.127/25', '10.0.0.0/32', true],
  ['0.0.0.0/0', '192.168.1.0/24', true],
  ['255.255.255.0/24', '255.255.255.255', true],
  ['172.22.0.0/16', 'fd00::/8', false],
  ['172.22.0.0/16', 'nonsense', false],
  ['999.0.0.0/8', '231.0.0.0/8', false],
];
test('networks that overlap, whichever is named first', () => {
  for (const [one, other, overlap] of pairs) {
    const found = [overlaps(one, other), overlaps(other, one)];
    assert.deepEqual(found, [overlap, overlap], `${one} and ${other}`);
  }
});

test("the kernel's routes are read as networks, the default route is none", () => {
  const table = [
    'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
    'eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0',
    'wg0\t000016AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0',
    'eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0',
    '',
  ].join('\n');
  assert.deepEqual(parseRoutes(table), [
    { interface: 'wg0', subnet: '172.22.0.0/16' },
    { interface: 'eth0', subnet: '192.168.2.0/24' },
  ]);
  assert.ok(overlaps('172.22.0.0/16', parseRoutes(table)[0]!.subnet));
});

const secretLines: string[] = [
  'token: s3cr3t-value',
  '  "api_key": "abc123def456",',
  "password = 'correct horse'",
  'SMTP_PASSWORD=hunter2',
  '      SYNAPSE_TOKEN: abcdefgh',
  'ENV API_KEY=abc-def-ghi',
  `url: postgres://app:${'hunter2'}@db:5432/app`,
  `anything: ghp_${'a'.repeat(36)}`,
  `x: AKIA${'ABCD1234EFGH5678'}`,
  `-----BEGIN ${'RSA PRIVATE'} KEY-----`,
  `# even in a remark: sk-${'a1b2'.repeat(6)}`,
];
test('a secret is found by the name of its key or by its form, and its value is not repeated', () => {
  for (const line of secretLines) {
    const secrets = findSecrets(`name: app\n${line}\n`);
    const numbers = secrets.map(({ line: number }) => number);
    assert.deepEqual(numbers, [2], line);
    assert.ok(!/hunter2|s3cr3t|correct horse/.test(secrets[0]!.why));
  }
});

// The limit is one of a check that hangs: what grows by the square of the length takes hours here.
test('a line of a megabyte cannot stop the check for secrets', () => {
  const texts = ['a', 'a.', 'a=', 'token ', 'eyJ', '-----BEGIN ', 'sk-', '"'];
  const check = `import { findSecrets } from '${REPOSITORY}tasks/lib/doctor/project.ts';
    for (const text of ${JSON.stringify(texts)}) findSecrets(text.repeat(1_000_000 / text.length));
    findSecrets('token=' + ']'.repeat(1_000_000) + 'a');`;
  const argv = ['--import', 'tsx/esm', '--input-type=module', '--eval', check];
  execFileSync(process.execPath, argv, { cwd: REPOSITORY, timeout: 120_000 });
});

const harmlessLines: string[] = [
  `SYNAPSE_TOKEN: ${'$'}{SYNAPSE_TOKEN:-}`,
  'token: ""',
  '# SYNAPSE_TOKEN=                     # bearer token that /mcp asks for',
  'secret_files = { ca = "NODE_EXTRA_CA_CERTS" }',
  'token = "TOKEN"                              # SYNAPSE_TOKEN of .env',
  'max_tokens: 4096',
  'password_file: /run/secrets/db',
  '"description": "Bearer token that clients send"',
  'RUN --mount=type=secret,id=ca,required=false \\',
  '    if [ -f /run/secrets/ca ]; then export NODE_EXTRA_CA_CERTS=/run/secrets/ca; fi && \\',
  'url: http://127.0.0.1:8002/health',
  `url: postgres://app:${'$'}{DB_PASSWORD}@db/app`,
  'api_key: <your key>',
];
test('what only speaks of a secret is none', () => {
  assert.deepEqual(
    harmlessLines.filter((line) => findSecrets(line).length > 0),
    [],
  );
});
