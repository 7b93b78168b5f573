// What `setup` would do about the Docker engine on machines that nobody has at hand.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { TaskError } from '../../tasks/lib/errors.ts';
import { isRegistryFailure, standInFor } from '../../tasks/lib/setup/base-image.ts';
import { daemonCommand, STANDARD_PLACE } from '../../tasks/lib/setup/daemon.ts';
import { chooseOwner, describeDirectoryStep, planDirectory } from '../../tasks/lib/setup/data-directory.ts';
import {
  ENGINE_PARTS,
  type EngineObserved,
  type EngineStep,
  parseDistribution,
  planEngine,
} from '../../tasks/lib/setup/detect.ts';
import { planSettings } from '../../tasks/lib/setup/setup.ts';

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
const CONFIGURE: EngineStep = { act: 'configure' };
const START: EngineStep = { act: 'start', by: 'process' };
const install = (...packages: string[]): EngineStep => ({ act: 'install', packages });
const unpack = (...packages: string[]): EngineStep => ({ act: 'unpack', suite: 'trixie', packages });

const PLANS: [name: string, observed: EngineObserved, steps: EngineStep[]][] = [
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
    [CONFIGURE, install(...SYSTEM), unpack(...DOCKER), { act: 'start', by: 'systemd' }],
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
      { act: 'start', by: 'systemd' },
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
  [
    'not root',
    machine({ root: false }),
    'engine-missing',
    /sudo env "PATH=\$PATH" npx tsx tasks\/setup\.ts --yes/,
  ],
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
    /never replaced/,
  ],
];

describe('the plan for a Docker engine', () => {
  for (const [name, observed, steps] of PLANS) {
    it(name, () => assert.deepEqual(planEngine(observed), steps));
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
  it('reads os-release with and without quotes', () => {
    const text =
      'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nID=debian\n';
    assert.deepEqual(parseDistribution(text), BOOKWORM);
    assert.equal(parseDistribution('').id, '');
  });
  it('a daemon in a namespace is entered, and found again by its own program', () => {
    const command = daemonCommand({ ...STANDARD_PLACE, namespace: 'pi' }, '/usr/sbin/dockerd');
    assert.ok(command.join(' ').includes('--exec /usr/sbin/dockerd --startas /usr/bin/nsenter'));
    assert.ok(command.join(' ').includes('-- --net=/run/netns/pi /usr/sbin/dockerd --host'));
  });
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
  const ROOT = { uid: 0, gid: 0 };
  const NODE = { uid: 1000, gid: 1000 };
  it('belongs to the image’s user when root sets it up, to oneself otherwise', () => {
    assert.deepEqual(chooseOwner({}, undefined, ROOT), NODE);
    assert.deepEqual(chooseOwner({}, undefined, { uid: 501, gid: 20 }), { uid: 501, gid: 20 });
  });
  it('data that somebody owns keeps its owner: the containers run as that', () => {
    const theirs = { uid: 1234, gid: 99, mode: 0o700, entries: 4 };
    assert.deepEqual(chooseOwner({}, theirs, ROOT), { uid: 1234, gid: 99 });
    assert.deepEqual(planDirectory('/d', theirs, { uid: 1234, gid: 99 }, ROOT), []);
  });
  it('a change to data that is there is said, with how much it concerns', () => {
    const steps = planDirectory('/d', { ...ROOT, mode: 0o755, entries: 4 }, NODE, ROOT).map(
      describeDirectoryStep,
    );
    assert.deepEqual(steps, [
      'restrict the data directory /d: mode 0755 → 0700',
      'give /d, with everything in it (4 entries) to the containers’ user: 0:0 → 1000:1000',
    ]);
  });
});

describe('the settings of this machine', () => {
  const pi = { cpus: 4, uid: 1000, gid: 1000, dataDirectory: '/srv/data' };
  it('are written where they are missing', () => {
    assert.deepEqual(planSettings({}, pi), { DATA_DIR: '/srv/data', UID: '1000', GID: '1000' });
  });
  it('never replace what a person wrote', () => {
    assert.deepEqual(planSettings({ DATA_DIR: '/mine', UID: '5', GID: '5', CPUS: '1.5' }, pi), {});
  });
  it('cap the CPUs at what there are, because the engine refuses more', () => {
    assert.equal(planSettings({}, { ...pi, cpus: 2 }).CPUS, '2');
    assert.equal(planSettings({ CPUS: '8' }, pi).CPUS, '4');
  });
});
