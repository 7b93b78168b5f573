// The doctor's judgements on machines that nobody has at hand: a Raspberry Pi without its memory cgroup, an old engine,
// a network file system, a route in the way. What would be lost: a machine that is called fit and is not.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import type { EngineInfo } from '../../tasks/lib/docker/engine.ts';
import { overlaps, parseRoutes } from '../../tasks/lib/docker/network.ts';
import { type Facts, findingOf } from '../../tasks/lib/doctor/check.ts';
import { LIVE_CHECKS } from '../../tasks/lib/doctor/live.ts';
import { judgeFileSystem } from '../../tasks/lib/doctor/machine.ts';
import { findSecrets } from '../../tasks/lib/doctor/project.ts';
import { CHECKS } from '../../tasks/lib/doctor/run.ts';
import { loadProject } from '../../tasks/lib/project.ts';
import { REPOSITORY } from '../tasks/project.ts';

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

const CONTAINER = { id: 'c1', name: 'app-prod', state: 'running', memoryLimit: 3e9 };
const STATS = (limit: number) => ({
  memory_stats: { usage: 1, limit },
  cpu_stats: { cpu_usage: { total_usage: 1 } },
});

/** Facts of a well machine, with what a test changes. */
function machine(
  change: { info?: Partial<EngineInfo>; answers?: Record<string, unknown>; containers?: object[] } = {},
) {
  const limits = { deploy: { resources: { limits: { cpus: 3 } } } };
  return {
    project: { environments: { dev: { service: 'dev' }, prod: { service: 'prod' } } },
    info: async () => ({ ...INFO, ...change.info }),
    containers: async () => change.containers ?? [CONTAINER],
    model: async () => ({ services: { dev: limits, prod: limits }, networks: {} }),
    services: async () => ({ dev: { image: 'app:latest' }, prod: { image: 'app:v1.0.0' } }),
    ask: async (path: string) =>
      change.answers?.[path] ??
      (path.endsWith('one-shot=true') ? STATS(CONTAINER.memoryLimit) : { Architecture: 'arm64' }),
  } as unknown as Facts;
}

const find = (id: string) => CHECKS.find((check) => check.id === id)!;
const LIMITS = INFO.limits;
const STATS_PATH = '/containers/c1/stats?stream=false&one-shot=true';

const judgements: [id: string, verdict: string, machine: Facts, detail: RegExp, remedy?: RegExp][] = [
  ['engine', 'ok', machine(), /engine 26/],
  [
    'engine',
    'failed',
    machine({ info: { version: '20.10.24' } }),
    /expected 25 or newer/,
    /docs\.docker\.com/,
  ],
  ['cgroup', 'ok', machine({ info: { cgroup: '1' } }), /version 1/],
  [
    'cgroup',
    'failed',
    machine({ info: { limits: { ...LIMITS, cpu: false, pids: false } } }),
    /CPU quota, process count/,
    /kernel/,
  ],
  ['memory-limits', 'ok', machine(), /app-prod 3\.0 GB/],
  [
    'memory-limits',
    'failed',
    machine({ info: { limits: { ...LIMITS, memory: false } } }),
    /does not enforce memory limits/,
    /cgroup_enable=memory cgroup_memory=1.*cmdline\.txt/,
  ],
  [
    'memory-limits',
    'failed',
    machine({ answers: { [STATS_PATH]: STATS(8e9) } }),
    /app-prod has a limit of 3\.0 GB, the kernel enforces 8\.0 GB/,
    /cmdline\.txt/,
  ],
  [
    'memory-limits',
    'failed',
    machine({ answers: { [STATS_PATH]: { memory_stats: {} } } }),
    /enforces nothing/,
    /cmdline\.txt/,
  ],
  [
    'memory-limits',
    'warning',
    machine({ containers: [{ ...CONTAINER, memoryLimit: 0 }] }),
    /has no memory limit/,
    /limits\.memory/,
  ],
  ['cpus', 'ok', machine(), /3/],
  ['cpus', 'failed', machine({ info: { cpus: 2 } }), /dev wants 3 CPUs, the engine has 2/, /npm run setup/],
  ['architecture', 'ok', machine(), /arm64/],
  [
    'architecture',
    'failed',
    machine({ answers: { '/images/app:v1.0.0/json': { Architecture: 'amd64' } } }),
    /app:v1\.0\.0 is for amd64, this engine runs arm64/,
    /npm run build-push -- v1\.0\.0/,
  ],
];
for (const [id, verdict, facts, detail, remedy] of judgements) {
  test(`${id}, ${verdict}: ${detail.source}`, async () => {
    const finding = await findingOf(find(id), facts);
    assert.equal(finding.verdict, verdict, finding.detail);
    assert.match(finding.detail, detail);
    if (remedy) assert.match(finding.remedy ?? '', remedy);
  });
}

const DIGEST = `sha256:${'1'.repeat(64)}`;
const older = (name: string) => ({ name, version: name.slice(1), commit: 'c1', record: undefined });
const release = (name: string) => ({ ...older(name), record: { digest: DIGEST, platforms: {} } });
const local = (...names: string[]) => ({ id: DIGEST, names, labels: {} });

/** Facts of this very project as its release.toml says, with what a row changes. */
async function situation({
  dotenv = {},
  ...change
}: { dotenv?: Record<string, string> } & Record<string, unknown>) {
  const answers = Object.entries(change).map(([name, value]) => [name, async () => value]);
  const project = await loadProject(process.cwd(), async () => dotenv);
  return { project: { ...project, root: '/nowhere' }, ...Object.fromEntries(answers) } as unknown as Facts;
}
const listening = (address: string, token = '') => ({
  'synapse-dev': { publishes: [], environment: {} },
  'synapse-prod': {
    publishes: [{ address, published: 8002, target: 8002 }],
    environment: { SYNAPSE_TOKEN: token },
  },
});
const PROD = { SYNAPSE_PROD_TAG: 'v1.0.0' };
const OPENING = /SYNAPSE_TOKEN=.*\nSYNAPSE_BIND_ADDRESS=[\d.]+\n.*SYNAPSE_BIND_ADDRESS=127\.0\.0\.1$/;

const situations: [
  id: string,
  verdict: string,
  facts: Parameters<typeof situation>[0],
  detail: RegExp,
  remedy?: RegExp,
][] = [
  ['exposure', 'ok', { services: listening('127.0.0.1') }, /^prod (127\.0\.0\.1|::1):8002$/],
  ['exposure', 'ok', { services: listening('::1') }, /^prod (127\.0\.0\.1|::1):8002$/],
  [
    'exposure',
    'failed',
    { services: listening('') },
    /^prod .*0\.0\.0\.0:8002: SYNAPSE_TOKEN is not set$/,
    OPENING,
  ],
  ['exposure', 'failed', { services: listening('192.168.1.5') }, /192\.168\.1\.5:8002/, OPENING],
  ['exposure', 'ok', { services: listening('0.0.0.0', 'long-enough') }, /^prod 0\.0\.0\.0:8002$/],
  ['images', 'ok', { images: [], releases: [] }, /none yet/],
  [
    'images',
    'ok',
    { images: [local('synapse:v1.0.0', 'synapse:latest')], releases: [release('v1.0.0')], dotenv: PROD },
    /v1\.0\.0/,
  ],
  // After `docker system prune -af`.
  [
    'images',
    'failed',
    {
      images: [],
      releases: [release('v1.0.0')],
      dotenv: { ...PROD, SYNAPSE_BASE_IMAGE: 'synapse-node:24' },
      ask: undefined,
    },
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
  ['health', 'ok', { containers: [] }, /none is active/],
];
for (const [id, verdict, seen, detail, remedy] of situations) {
  test(`${id}, ${verdict}: ${detail.source}`, async () => {
    const finding = await findingOf(find(id), await situation(seen));
    assert.equal(finding.verdict, verdict, finding.detail);
    assert.match(finding.detail, detail);
    if (remedy) assert.match(finding.remedy ?? '', remedy);
  });
}

test('every check has a name of its own', () => {
  const all = [...CHECKS, ...LIVE_CHECKS];
  assert.equal(new Set(all.map(({ id }) => id)).size, all.length);
  assert.ok(all.every(({ title }) => title.length > 0 && title.length < 30));
});

type Reported = [verdict: 'fail' | 'warn', detail: string, remedy: string][];
const reports: [what: string, problems: Reported, finding: object][] = [
  ['nothing', [], { verdict: 'ok', detail: 'fine' }],
  [
    'the worst decides',
    [
      ['warn', 'a', 'x'],
      ['fail', 'b', 'y'],
    ],
    { verdict: 'failed', detail: 'a\nb', remedy: 'x\ny' },
  ],
  [
    'each remedy once',
    [
      ['warn', 'a', 'x'],
      ['warn', 'b', 'x'],
    ],
    { verdict: 'warning', detail: 'a\nb', remedy: 'x' },
  ],
];
for (const [what, problems, wanted] of reports) {
  test(`several problems of one check: ${what}`, async () => {
    const found = await findingOf(
      {
        check: async (_, report) => {
          for (const [verdict, detail, remedy] of problems) report[verdict](detail, remedy);
          return 'fine';
        },
      },
      {} as Facts,
    );
    assert.deepEqual(found, wanted);
  });
}

const fileSystems: [type: number, verdict: string, what: RegExp][] = [
  [0xef53, 'ok', /suitable for SQLite/],
  [0x9123683e, 'ok', /suitable for SQLite/],
  [0x6969, 'failed', /NFS: locks over a network/],
  [0xff534d42, 'failed', /CIFS/],
  [0xff534d42 | 0, 'failed', /CIFS/],
  [0x01021997, 'failed', /9p/],
  [0x65735546, 'failed', /FUSE/],
  [0x01021994, 'failed', /tmpfs: it is in memory/],
  [0x794c7630, 'warning', /overlayfs: it is a container's layer/],
];
for (const [type, verdict, what] of fileSystems) {
  test(`file system 0x${(type >>> 0).toString(16)}: ${verdict}`, async () => {
    const check = async (_: Facts, report: Parameters<typeof judgeFileSystem>[3]) =>
      judgeFileSystem(type, '/data', 'APP_DATA_DIR', report);
    const finding = await findingOf({ check }, {} as Facts);
    assert.equal(finding.verdict, verdict);
    assert.match(finding.detail, what);
    assert.equal(finding.verdict === 'ok', finding.remedy === undefined);
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
for (const [one, other, overlap] of pairs) {
  test(`${one} and ${other} ${overlap ? 'overlap' : 'do not overlap'}`, () => {
    assert.equal(overlaps(one, other), overlap);
    assert.equal(overlaps(other, one), overlap);
  });
}

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
for (const line of secretLines) {
  test(`a secret: ${line.slice(0, 30)}`, () => {
    const found = findSecrets(`name: app\n${line}\n`);
    assert.deepEqual(
      found.map(({ line: number }) => number),
      [2],
    );
    assert.ok(!/hunter2|s3cr3t|correct horse/.test(found[0]!.why), 'the value is not repeated');
  });
}

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
for (const line of harmlessLines) {
  test(`no secret: ${line.slice(0, 50)}`, () => assert.deepEqual(findSecrets(line), []));
}
