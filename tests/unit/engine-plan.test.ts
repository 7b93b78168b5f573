// What `setup` would do about the Docker engine, and what is wrong with a data directory, on machines that nobody has
// at hand. What would be lost: a working engine, or somebody's data.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isRegistryFailure, standInFor } from '../../tasks/lib/setup/base-image.ts';
import { dataDirectoryProblems } from '../../tasks/lib/setup/data-directory.ts';
import { ENGINE_PARTS, type EngineObserved, planEngine } from '../../tasks/lib/setup/engine.ts';
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

const CLIENT = { client: 'x', compose: '2.26.1', buildx: '0.13.1' };
const MAC = { platform: 'darwin', root: false } as const;
const TRIXIE_DOCKER = ['docker-cli', 'docker.io', 'containerd', ...SYSTEM, 'docker-compose', 'docker-buildx'];

const PLANS: [name: string, differences: Partial<EngineObserved>, plan: string[]][] = [
  ['a working engine is left alone', { server: READY, parts: ALL_PARTS, untouched: false }, []],
  ['a working engine elsewhere, too', { server: READY, parts: CLIENT, endpoint: 'ssh://pi' }, []],
  ['a working engine on a Mac needs no daemon here', { ...MAC, server: READY, parts: CLIENT }, []],
  ['Debian 12, nothing', {}, [CONFIGURE, install(...SYSTEM), unpack(...DOCKER), START]],
  [
    'Debian 12 with a client of its own keeps that client',
    { parts: { client: '/usr/local/bin/docker' } },
    [CONFIGURE, install(...SYSTEM), unpack(...DOCKER.slice(1)), START],
  ],
  [
    'Raspberry Pi OS 64 bit is Debian 12 on arm64 with systemd',
    { arch: 'arm64', systemd: true },
    [CONFIGURE, install(...SYSTEM), unpack(...DOCKER), START_SERVICE],
  ],
  [
    'Debian 13 has it all in its own suite',
    { distribution: TRIXIE, systemd: true },
    [CONFIGURE, install(...TRIXIE_DOCKER), START_SERVICE],
  ],
  [
    'a running engine without Compose gets Compose and no new daemon',
    { server: READY, parts: { client: 'x', daemon: 'x', buildx: '0.13.1' }, untouched: false },
    [unpack('docker-compose')],
  ],
  ['a dead daemon is started', { parts: ALL_PARTS, untouched: false }, [START]],
  [
    'data of an earlier engine: its configuration stays as it is',
    { untouched: false },
    [install(...SYSTEM), unpack(...DOCKER), START],
  ],
];

const FEDORA = { id: 'fedora', version: 41, codename: '', name: 'Fedora Linux 41' };
const DENIED = { state: 'denied', detail: 'permission denied' } as const;
const OLD = { state: 'ready', version: '20.10.24+dfsg1' } as const;
const DESKTOP = 'unix:///Users/me/.docker/run/docker.sock';

const REFUSALS: [name: string, differences: Partial<EngineObserved>, code: string, hint: RegExp][] = [
  ['macOS without Docker', MAC, 'engine-missing', /Docker Desktop|OrbStack|colima/],
  ['macOS, not started', { ...MAC, parts: ALL_PARTS, endpoint: DESKTOP }, 'engine-down', /open -a Docker/],
  ['not root', { root: false }, 'engine-missing', /sudo env "PATH=\$PATH" npm run setup -- --yes/],
  [
    'not root, daemon dead',
    { root: false, parts: ALL_PARTS, systemd: true },
    'engine-down',
    /sudo systemctl start docker/,
  ],
  [
    'Ubuntu',
    { distribution: UBUNTU },
    'engine-missing',
    /install docker\.io docker-compose-v2 docker-buildx/,
  ],
  ['one we do not know', { distribution: FEDORA }, 'engine-missing', /docs\.docker\.com.*install\/fedora/],
  ['an older Debian', { distribution: { ...BOOKWORM, version: 11 } }, 'engine-missing', /docs\.docker\.com/],
  ['a 32-bit Raspberry Pi OS', { arch: 'arm' }, 'engine-missing', /docs\.docker\.com/],
  [
    'a socket that this user may not open',
    { root: false, server: DENIED, parts: ALL_PARTS },
    'engine-denied',
    /usermod -aG docker/,
  ],
  [
    'DOCKER_HOST names an engine that does not answer: none is started here instead',
    { endpoint: 'tcp://10.0.0.9:2375', parts: ALL_PARTS },
    'engine-unreachable',
    /unset DOCKER_HOST/,
  ],
  ['an engine that is too old', { server: OLD, parts: ALL_PARTS }, 'engine-too-old', /never replaces/],
];

describe('the plan for a Docker engine', () => {
  for (const [name, differences, plan] of PLANS)
    it(name, () => assert.deepEqual(describeSteps(planEngine(machine(differences))), plan));
  for (const [name, differences, code, hint] of REFUSALS)
    it(`refuses, saying what to do: ${name}`, () =>
      assert.throws(() => planEngine(machine(differences)), { code, exitCode: 1, hint }));
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
    for (const text of unreachable) assert.ok(isRegistryFailure(text), text);
    for (const text of wrong) assert.ok(!isRegistryFailure(text), text);
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
  type State = typeof good | undefined;
  const ROWS: [name: string, state: State, change: Partial<typeof wanted>, problems: RegExp[]][] = [
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
