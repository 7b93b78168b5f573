// What `setup` would do about the Docker engine, and what is wrong with a data directory, on machines that nobody has
// at hand. What would be lost: a working engine, or somebody's data.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { TaskError } from '../../tasks/lib/errors.ts';
import { isRegistryFailure, standInFor } from '../../tasks/lib/setup/base-image.ts';
import { dataDirectoryProblems } from '../../tasks/lib/setup/data-directory.ts';
import { ENGINE_PARTS, type EngineObserved, planEngine } from '../../tasks/lib/setup/detect.ts';
import { describeSteps } from '../../tasks/lib/steps.ts';

const BOOKWORM = { id: 'debian', version: 12, codename: 'bookworm', name: 'Debian GNU/Linux 12 (bookworm)' };
const TRIXIE = { id: 'debian', version: 13, codename: 'trixie', name: 'Debian GNU/Linux 13 (trixie)' };
const UBUNTU = { id: 'ubuntu', version: 24, codename: 'noble', name: 'Ubuntu 24.04 LTS' };
const ALL_PARTS = Object.fromEntries(ENGINE_PARTS.map((part) => [part, 'there']));
const READY = { state: 'ready', version: '26.1.5+dfsg1' } as const;

/** A fresh Debian 12 where we are root, but for what a case says. */
function machine(differences: Partial<EngineObserved> = {}): EngineObserved {
  return {
    platform: 'linux',
    arch: 'x64',
    root: true,
    systemd: false,
    distribution: BOOKWORM,
    endpoint: 'unix:///var/run/docker.sock',
    server: { state: 'unreachable', detail: '' },
    parts: {},
    untouched: true,
    ...differences,
  };
}

const SYSTEM = ['runc', 'iptables', 'tini'];
const DOCKER = ['docker-cli', 'docker.io', 'containerd', 'docker-compose', 'docker-buildx'];
const CONFIGURE = 'configure the Docker engine: containerd image store';
const START = 'start the Docker engine (dockerd, detached)';
const START_SERVICE = 'start the Docker engine (systemd service)';
const install = (...packages: string[]) => `install Debian packages: ${packages.join(', ')}`;
const unpack = (...packages: string[]) => `add to /usr/local from Debian trixie: ${packages.join(', ')}`;

const PLANS: [name: string, observed: EngineObserved, plan: string[]][] = [
  ['a working engine is left alone', machine({ server: READY, parts: ALL_PARTS, untouched: false }), []],
  [
    'a working engine elsewhere is left alone',
    machine({
      server: READY,
      parts: { client: 'x', compose: '2.26.1', buildx: '0.13.1' },
      endpoint: 'ssh://pi',
    }),
    [],
  ],
  [
    'a working engine on a Mac needs no daemon here',
    machine({
      platform: 'darwin',
      root: false,
      server: READY,
      parts: { client: 'x', compose: '2.26.1', buildx: '0.13.1' },
    }),
    [],
  ],
  ['Debian 12, nothing', machine(), [CONFIGURE, install(...SYSTEM), unpack(...DOCKER), START]],
  [
    'Debian 12 with a client of its own keeps that client',
    machine({ parts: { client: '/usr/local/bin/docker' } }),
    [CONFIGURE, install(...SYSTEM), unpack(...DOCKER.slice(1)), START],
  ],
  [
    'Raspberry Pi OS 64 bit is Debian 12 on arm64 with systemd',
    machine({ arch: 'arm64', systemd: true }),
    [CONFIGURE, install(...SYSTEM), unpack(...DOCKER), START_SERVICE],
  ],
  [
    'Debian 13 has it all in its own suite',
    machine({ distribution: TRIXIE, systemd: true }),
    [
      CONFIGURE,
      install(
        'docker-cli',
        'docker.io',
        'containerd',
        'runc',
        'iptables',
        'tini',
        'docker-compose',
        'docker-buildx',
      ),
      START_SERVICE,
    ],
  ],
  [
    'a running engine without Compose gets Compose and no new daemon',
    machine({ server: READY, parts: { client: 'x', daemon: 'x', buildx: '0.13.1' }, untouched: false }),
    [unpack('docker-compose')],
  ],
  ['a dead daemon is started', machine({ parts: ALL_PARTS, untouched: false }), [START]],
  [
    'data of an earlier engine: its configuration stays as it is',
    machine({ untouched: false }),
    [install(...SYSTEM), unpack(...DOCKER), START],
  ],
];

const REFUSALS: [name: string, observed: EngineObserved, code: string, hint: RegExp][] = [
  [
    'macOS without Docker',
    machine({ platform: 'darwin', root: false }),
    'engine-missing',
    /Docker Desktop|OrbStack|colima/,
  ],
  [
    'macOS, Docker not started',
    machine({
      platform: 'darwin',
      root: false,
      parts: ALL_PARTS,
      endpoint: 'unix:///Users/me/.docker/run/docker.sock',
    }),
    'engine-down',
    /open -a Docker/,
  ],
  ['not root', machine({ root: false }), 'engine-missing', /sudo env "PATH=\$PATH" npm run setup -- --yes/],
  [
    'not root, daemon dead',
    machine({ root: false, parts: ALL_PARTS, systemd: true }),
    'engine-down',
    /sudo systemctl start docker/,
  ],
  [
    'Ubuntu',
    machine({ distribution: UBUNTU }),
    'engine-missing',
    /apt-get install docker\.io docker-compose-v2 docker-buildx/,
  ],
  [
    'a distribution that we do not know',
    machine({ distribution: { id: 'fedora', version: 41, codename: '', name: 'Fedora Linux 41' } }),
    'engine-missing',
    /docs\.docker\.com\/engine\/install\/fedora/,
  ],
  [
    'a Debian that we do not know',
    machine({ distribution: { ...BOOKWORM, version: 11 } }),
    'engine-missing',
    /docs\.docker\.com/,
  ],
  ['a 32-bit Raspberry Pi OS', machine({ arch: 'arm' }), 'engine-missing', /docs\.docker\.com/],
  [
    'a socket that this user may not open',
    machine({ root: false, server: { state: 'denied', detail: 'permission denied' }, parts: ALL_PARTS }),
    'engine-denied',
    /usermod -aG docker/,
  ],
  [
    'DOCKER_HOST names an engine that does not answer: none is started here instead',
    machine({ endpoint: 'tcp://10.0.0.9:2375', parts: ALL_PARTS }),
    'engine-unreachable',
    /unset DOCKER_HOST/,
  ],
  [
    'a running engine that is too old is not replaced',
    machine({ server: { state: 'ready', version: '20.10.24+dfsg1' }, parts: ALL_PARTS }),
    'engine-too-old',
    /never replaces/,
  ],
];

describe('the plan for a Docker engine', () => {
  for (const [name, observed, plan] of PLANS) {
    it(name, () => assert.deepEqual(describeSteps(planEngine(observed)), plan));
  }
  for (const [name, observed, code, hint] of REFUSALS) {
    it(`refuses, saying what to do: ${name}`, () => {
      assert.throws(
        () => planEngine(observed),
        (error: unknown) => {
          assert.ok(error instanceof TaskError);
          assert.equal(error.code, code);
          assert.equal(error.exitCode, 1);
          assert.match(error.hint ?? '', hint);
          return true;
        },
      );
    });
  }
});

describe('the base image', () => {
  it('an unreachable registry is told from a wrong name', () => {
    const unreachable = [
      'dial tcp: lookup registry-1.docker.io on 10.0.0.1:53: no such host',
      'net/http: request canceled while waiting for connection (Client.Timeout exceeded)',
      'connect: connection refused',
      'tls: failed to verify certificate: x509: certificate signed by unknown authority',
      'toomanyrequests: You have reached your pull rate limit',
    ];
    const wrong = [
      'pull access denied for nodee, repository does not exist or may require authorization',
      'docker.io/library/node:99-bookworm-slim: not found',
      'invalid reference format',
    ];
    assert.deepEqual(
      unreachable.map(isRegistryFailure),
      unreachable.map(() => true),
    );
    assert.deepEqual(
      wrong.map(isRegistryFailure),
      wrong.map(() => false),
    );
  });
  it('a stand-in has a name of its own, and there is none for other programs', () => {
    assert.equal(standInFor('synapse', 'node:24-bookworm-slim'), 'synapse-node:24');
    assert.equal(standInFor('app', 'registry.example/library/node:22'), 'app-node:22');
    assert.equal(standInFor('app', 'python:3.13'), undefined);
  });
});

describe('the data directory', () => {
  const wanted = { path: '/d', variable: 'APP_DATA_DIR', owner: { uid: 1000, gid: 1000 }, format: 2 };
  const good = { uid: 1000, gid: 1000, mode: 0o700, entries: 4, format: 2, free: 5e9 };
  const ROWS: [
    name: string,
    state: typeof good | undefined,
    change: Partial<typeof wanted>,
    problems: RegExp[],
  ][] = [
    ['as it should be', good, {}, []],
    ['of another group, which has no rights in it', { ...good, gid: 5 }, {}, []],
    ['of an image that says no format', good, { format: undefined as never }, []],
    ['of another user, where owners are mapped', { ...good, uid: 5 }, { owner: undefined as never }, []],
    ['gone', undefined, {}, [/^missing data-directory: .*\/d does not exist \(.*APP_DATA_DIR=/]],
    [
      'open to others',
      { ...good, mode: 0o755 },
      {},
      [/^mode data-directory: .*0755, expected 0700 \(.*chmod 0700 \/d\)/],
    ],
    [
      'of another user',
      { ...good, uid: 0 },
      {},
      [/^owner data-directory: .*belongs to 0:1000, the containers run as 1000:1000/],
    ],
    [
      'newer than the image',
      { ...good, format: 3 },
      {},
      [/^format data-format: .*has format 3, the image reads up to 2/],
    ],
    ['on a full disk', { ...good, free: 9e6 }, {}, [/^full disk-full: .*9 MB free, at least 100 MB/]],
    ['wrong in two ways', { ...good, mode: 0o777, uid: 7 }, {}, [/^mode /, /^owner /]],
  ];
  for (const [name, state, change, problems] of ROWS) {
    it(`${name}: ${problems.length} problems`, () => {
      const found = dataDirectoryProblems(state, { ...wanted, ...change });
      assert.equal(found.length, problems.length, JSON.stringify(found));
      for (const [index, { kind, code, message, hint }] of found.entries())
        assert.match(`${kind} ${code}: ${message} (${hint})`, problems[index]!);
    });
  }
});
