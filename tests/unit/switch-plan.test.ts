// The pure parts of a switch: the plan, dependencies, downtime, the stack file, and the hints that name a switch.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { stopCommand, switchCommand } from '../../tasks/lib/active.ts';
import type { ComposeService } from '../../tasks/lib/docker/compose.ts';
import { isLocalEndpoint, parseHost } from '../../tasks/lib/docker/engine.ts';
import type { Container } from '../../tasks/lib/docker/objects.ts';
import { loginCommand, sshTarget } from '../../tasks/lib/docker/remote.ts';
import type { EnvironmentName, Project } from '../../tasks/lib/project.ts';
import { dependenciesOf, meets } from '../../tasks/lib/switch/dependencies.ts';
import type { EnvironmentState, Observation } from '../../tasks/lib/switch/observe.ts';
import { planStart, planSwitch, switchSchema } from '../../tasks/lib/switch/plan.ts';
import { downtimeOf, type Sample } from '../../tasks/lib/switch/probe.ts';
import { switchSteps } from '../../tasks/lib/switch/run.ts';
import { stackFile } from '../../tasks/lib/switch/stack.ts';

function container(changes: Partial<Container> = {}): Container {
  return {
    id: 'c1',
    name: 'app-prod',
    service: 'prod',
    state: 'running',
    health: 'healthy',
    image: 'app:v1',
    imageId: 'sha256:1',
    startedAt: '',
    exitCode: 0,
    restarts: 0,
    memoryLimit: 0,
    environment: {},
    labels: {},
    restartPolicy: 'always',
    publishedPorts: [1],
    publishedAddresses: [],
    networkIds: [],
    anonymousVolumes: [],
    mounts: [],
    networks: [],
    ...changes,
  };
}

function state(name: EnvironmentName, changes: Partial<EnvironmentState> = {}): EnvironmentState {
  return {
    name,
    service: name,
    containerName: `app-${name}`,
    port: 1,
    url: '',
    container: container({ name: `app-${name}` }),
    health: { status: 200, body: {} },
    outdated: false,
    ...changes,
  };
}

const stopped = {
  container: container({ name: 'app-dev', state: 'exited', restartPolicy: 'no' }),
  health: undefined,
};

describe('how an environment is started', () => {
  const cases: [what: string, change: Partial<EnvironmentState>, how: string | undefined][] = [
    ['nothing there', { container: undefined, health: undefined }, 'create'],
    ['right and well', {}, undefined],
    ['another image', { container: container({ imageId: 'sha256:2' }) }, 'replace'],
    ['another configuration', { outdated: true }, 'replace'],
    ['right, but stopped', { container: container({ state: 'exited' }) }, 'resume'],
    [
      'stopped, and its network is gone',
      { container: container({ state: 'exited' }), cannotStart: 'x' },
      'replace',
    ],
    ['stopped and another image', { container: container({ state: 'exited', imageId: 'x' }) }, 'replace'],
    ['made and never started', { container: container({ state: 'created' }) }, 'replace'],
    ['paused', { container: container({ state: 'paused' }) }, 'replace'],
    ['answers 503', { health: { status: 503, body: {} } }, 'replace'],
    ['does not answer', { health: { status: 0, body: {}, error: 'ECONNREFUSED' } }, 'replace'],
    ['unhealthy by its own check', { container: container({ health: 'unhealthy' }) }, 'replace'],
    ['under another name', { container: container({ name: 'app-prod.before' }) }, 'replace'],
  ];
  for (const [what, change, how] of cases) {
    it(what, () => assert.equal(planStart(state('prod', change), 'sha256:1')?.how, how));
  }
});

describe('the plan', () => {
  type Changes = Partial<EnvironmentState>;
  const observed = (active: Observation['active'], dev: Changes, prod: Changes): Observation => ({
    active,
    prodTag: 'v1',
    environments: { dev: state('dev', dev), prod: state('prod', prod) },
  });
  const project = {
    project: { name: 'app', variable_prefix: 'X' },
    environments: { dev: { service: 'dev' }, prod: { service: 'prod' } },
  } as unknown as Project;
  const services = { dev: { restart: 'no' }, prod: { restart: 'always' } } as Record<
    EnvironmentName,
    ComposeService
  >;
  const steps = (now: Observation, active: Observation['active'], prodTag = 'v1', fetch?: 'pull') => {
    const target = { active, prodTag, imageIds: {}, images: {}, fetch };
    const data = planSwitch({ observed: now, services, containers: [] }, target);
    assert.deepEqual(switchSchema.parse(JSON.parse(JSON.stringify(data))), data, 'it survives the journal');
    return switchSteps(project, data, async () => assert.fail('planning does not need it')).map(
      ({ name }) => name,
    );
  };
  const none = { container: undefined, health: undefined };
  const looping = { container: container({ state: 'restarting', restartPolicy: 'no' }) };
  const stoppedByHand = {
    container: container({ state: 'exited', restartPolicy: 'always' }),
    health: undefined,
  };
  const create = ['create-prod', 'start-prod', 'prove-prod', 'take-over-prod'];
  const replace = ['create-prod', 'retire-prod', 'start-prod', 'prove-prod', 'take-over-prod'];
  const cases: [what: string, steps: string[], wanted: string[]][] = [
    [
      'starts before it stops, and remembers last',
      steps(observed('dev', {}, none), 'prod'),
      [...create, 'stop-dev', 'remember'],
    ],
    [
      'fetches first',
      steps(observed('dev', stopped, none), 'prod', 'v2', 'pull'),
      ['fetch', ...create, 'remember'],
    ],
    [
      'keeps the old container until all is done',
      steps(observed('prod', stopped, { outdated: true }), 'prod'),
      [...replace, 'remember', 'remove-prod'],
    ],
    [
      'starts a stopped one again',
      steps(observed('prod', stopped, {}), 'both'),
      ['start-dev', 'prove-dev', 'take-over-dev', 'remember'],
    ],
    ['has nothing to do for prod', steps(observed('prod', stopped, {}), 'prod'), []],
    ['has nothing to do for both', steps(observed('both', {}, {}), 'both'), []],
    ['has nothing to do for none', steps(observed('none', stopped, none), 'none'), []],
    [
      'stops both, also what runs in a circle',
      steps(observed('both', {}, looping), 'none'),
      ['stop-dev', 'stop-prod', 'remember'],
    ],
    [
      'stops for good what a restart of the engine would start',
      steps(observed('none', stopped, stoppedByHand), 'none'),
      ['stop-prod', 'remember'],
    ],
    ['only remembers where only .env is behind', steps(observed('dev', stopped, {}), 'prod'), ['remember']],
  ];
  for (const [what, found, wanted] of cases) it(what, () => assert.deepEqual(found, wanted));

  const kept: [what: string, dev: Changes, keepsDev: boolean, started: string[]][] = [
    ['replaces a dev with an older latest', {}, false, ['replace dev']],
    ['keeps it where only the release of prod was chosen', {}, true, []],
    ['does not keep one that is stopped', stopped, true, ['replace dev']],
  ];
  for (const [what, dev, keepsDev, started] of kept) {
    it(what, () => {
      const imageIds = { dev: 'sha256:newer', prod: 'sha256:1' };
      const target = { active: 'both' as const, prodTag: 'v1', imageIds, images: {}, keepsDev };
      const { starts } = planSwitch(
        { observed: observed('both', dev, {}), services, containers: [] },
        target,
      );
      assert.deepEqual(
        starts.map(({ how, environment }) => `${how} ${environment}`),
        started,
      );
    });
  }
});

describe('downtime', () => {
  const port = (text: string): Sample[] =>
    [...text].map((mark, index) => ({ asked: index * 10, over: index * 10 + 5, answered: mark === '+' }));
  const rows: [what: string, ports: string[], ms: number][] = [
    ['none', ['+++'], 0],
    ['from the first refusal to the next answer', ['++--+'], 25],
    ['not before the first answer', ['--++'], 0],
    ['not after the last one: stopped for good', ['++--'], 0],
    ['each time', ['+-+-+'], 30],
    ['no samples', [''], 0],
    ['one port takes over from the other', ['+++--', '--+++'], 0],
    ['neither port answers', ['++---', '---++'], 15],
    ['the other port is not asked', ['+++--', ''], 0],
  ];
  for (const [what, ports, ms] of rows) it(what, () => assert.equal(downtimeOf(ports.map(port)), ms));
});

describe('what an environment depends on', () => {
  const depends = (dependsOn: Record<string, string>) => ({ dependsOn }) as unknown as ComposeService;
  it('starts in order, once, with every condition; the other environment is none', () => {
    const services = {
      prod: depends({ db: 'service_healthy', job: 'service_completed_successfully', dev: 'service_started' }),
      job: depends({ db: 'service_started' }),
      db: depends({}),
      dev: depends({}),
    };
    assert.deepEqual(dependenciesOf(services, ['prod'], ['dev', 'prod']), [
      { service: 'db', neededBy: 'prod and job', conditions: ['service_healthy', 'service_started'] },
      { service: 'job', neededBy: 'prod', conditions: ['service_completed_successfully'] },
    ]);
  });
  const exited = (exitCode: number) => container({ state: 'exited', exitCode, health: undefined });
  const cases: [condition: string, container: Container, met: boolean | RegExp][] = [
    ['service_started', container({ health: 'starting' }), true],
    ['service_started', exited(0), true],
    ['service_started', exited(1), /exited with code 1/],
    ['service_healthy', container({ health: 'starting' }), false],
    ['service_healthy', container(), true],
    ['service_healthy', container({ health: 'unhealthy' }), /unhealthy/],
    ['service_healthy', container({ health: undefined }), /no health check/],
    ['service_completed_successfully', container(), false],
    ['service_completed_successfully', exited(0), true],
    ['service_completed_successfully', exited(3), /exited with code 3/],
  ];
  for (const [condition, found, met] of cases) {
    it(`${condition}: ${found.state} ${found.health ?? found.exitCode}`, () => {
      const verdict = meets(found, condition);
      if (met instanceof RegExp) assert.match(String(verdict), met);
      else assert.equal(verdict, met);
    });
  }
});

describe('reaching an engine', () => {
  it('is direct through a socket, and through one ssh login for another machine', () => {
    assert.ok(isLocalEndpoint('unix:///var/run/docker.sock'));
    assert.ok(!isLocalEndpoint('ssh://me@pi'));
    assert.deepEqual(sshTarget(new URL('ssh://me@pi:2222')), ['-l', 'me', '-p', '2222', '--', 'pi']);
    assert.equal(loginCommand(new URL('ssh://pi'), '/t/c').at(-2), 'pi');
  });
  const hosts: [host: string, address: string | undefined][] = [
    ['unix:///var/run/docker.sock', 'unix:///var/run/docker.sock'],
    ['ssh://me@pi', 'ssh://me@pi'],
    ['tcp://10.0.0.9:2375', 'tcp://10.0.0.9:2375'],
    ['127.0.0.1:2375', 'tcp://127.0.0.1:2375'],
    ['bogus', undefined],
    ['tcp://10.0.0.9', undefined],
    ['ftp://pi:21', undefined],
    ['tcp://pi:99999', undefined],
  ];
  for (const [host, address] of hosts)
    it(`DOCKER_HOST=${host} ${address ? `is ${address}` : 'is refused by its name'}`, () => {
      if (address) assert.equal(parseHost(host), address);
      else
        assert.throws(() => parseHost(host), { exitCode: 2, message: new RegExp(`is "${host}", expected`) });
    });
});

describe('the stack file', () => {
  const service = {
    image: 'app:v1',
    restart: 'always',
    read_only: true,
    pull_policy: 'never',
    security_opt: ['no-new-privileges:true'],
    command: null,
    tmpfs: ['/tmp:mode=1777,size=256m'],
    configs: [{ source: 'app', target: '/etc/app/app.json' }],
    secrets: [{ source: 'key', target: '/run/secrets/key', mode: '0400' }],
    ports: [{ mode: 'ingress', host_ip: '127.0.0.1', target: 8002, published: '8012', protocol: 'tcp' }],
    volumes: [{ type: 'bind', source: '/data', target: '/data', bind: { create_host_path: false } }],
    deploy: { resources: { limits: { cpus: 3, memory: '100' } } },
  };
  const file = fileURLToPath(import.meta.url);
  const model = (change: object) => ({
    name: 'x',
    services: { prod: { ...service, ...change } },
    networks: { net: { ipam: {} } },
    volumes: { models: { name: 'm' } },
    configs: { app: { name: 'x_app', file } },
    secrets: { key: { name: 'x_key', file } },
  });
  const make = async (nodes: number, change: object = {}, image?: string) => {
    const options = { nodes, node: 'n1', images: { prod: image } };
    const { text, digest } = await stackFile('x', model(change), ['prod'], options);
    const made = JSON.parse(text);
    return { prod: made.services.prod, file: made, digest };
  };
  const stateless = { volumes: [] };

  it('updates stop-first where the node publishes the port, start-first behind the mesh, and goes back by itself', async () => {
    for (const [nodes, mode, order] of [
      [1, 'host', 'stop-first'],
      [3, 'ingress', 'start-first'],
    ] as const) {
      const { deploy, ports } = (await make(nodes)).prod;
      assert.deepEqual(
        [deploy.update_config.order, deploy.update_config.failure_action],
        [order, 'rollback'],
      );
      assert.deepEqual(ports, [{ target: 8002, published: 8012, protocol: 'tcp', mode }]);
    }
  });
  const places: [what: string, nodes: number, change: object, image: string | undefined, wanted: object][] = [
    ['one node has everything', 1, {}, undefined, { image: 'app:v1', constraints: [] }],
    ['local data keeps it on its node', 3, {}, undefined, { image: 'app:v1', constraints: ['node.id==n1'] }],
    [
      'without data every node pulls the digest',
      3,
      stateless,
      'r/app@sha256:1',
      { image: 'r/app@sha256:1', constraints: [] },
    ],
  ];
  for (const [what, nodes, change, image, wanted] of places) {
    it(what, async () => {
      const { prod } = await make(nodes, change, image);
      assert.deepEqual({ image: prod.image, constraints: prod.deploy.placement.constraints }, wanted);
    });
  }
  it('refuses what the other nodes could not pull, and what is no file', async () => {
    const message = /swarm of 3 nodes: .* cannot pull/;
    await assert.rejects(make(3, stateless), { code: 'swarm-image', message });
    await assert.rejects(make(1, { configs: [{ source: 'other' }] }), { code: 'swarm-config' });
  });
  it('names configs and secrets by their content', async () => {
    const { prod, file: made } = await make(1);
    assert.match(made.configs.app.name, /^x_app_[0-9a-f]{12}$/);
    assert.equal(made.configs.app.file, file);
    assert.deepEqual(prod.configs, [{ source: 'app', target: '/etc/app/app.json', mode: 0o444 }]);
    assert.deepEqual(prod.secrets, [{ source: 'key', target: '/run/secrets/key', mode: 0o400 }]);
  });
  it('leaves out what a swarm does not know, and keeps the rest', async () => {
    const { prod, digest } = await make(1);
    for (const key of ['restart', 'pull_policy', 'security_opt', 'tmpfs', 'command'])
      assert.ok(!(key in prod), key);
    assert.deepEqual(prod.volumes, [
      { type: 'bind', source: '/data', target: '/data' },
      { type: 'tmpfs', target: '/tmp' },
    ]);
    assert.deepEqual(prod.deploy.resources.limits, { cpus: '3', memory: '100' });
    assert.equal(prod.deploy.restart_policy.condition, 'any');
    assert.deepEqual(prod.deploy.labels, { 'release-flow.stack': digest });
  });
});

describe('a hint never stops a running environment that it does not name', () => {
  const project = (active?: string) =>
    ({
      project: { variable_prefix: 'X' },
      dotenv: active ? { X_ACTIVE_ENV: active } : {},
    }) as unknown as Project;
  const rows: [active: string | undefined, dev: string, prod: string, withoutProd: string][] = [
    [undefined, 'dev', 'prod', 'none'],
    ['none', 'dev', 'prod', 'none'],
    ['dev', 'dev', 'both', 'dev'],
    ['prod', 'both', 'prod', 'none'],
    ['both', 'both', 'both', 'dev'],
  ];
  for (const [active, dev, prod, withoutProd] of rows) {
    it(`while ${active ?? 'nothing'} is active`, () => {
      const now = project(active);
      assert.equal(switchCommand(now, 'dev'), `npm run switch -- ${dev}`);
      assert.equal(switchCommand(now, 'prod', { version: 'v1' }), `npm run switch -- ${prod} --version v1`);
      assert.equal(stopCommand(now, 'prod'), `npm run switch -- ${withoutProd}`);
    });
  }
  it('and no other place writes one by hand', async () => {
    const folder = fileURLToPath(new URL('../../tasks', import.meta.url));
    // Help and the notes, which are read on any machine, and one hint that names everything that runs.
    const allowed = [
      'examples: [',
      'return `npm run switch -- prod --version',
      'Commands to copy',
      'stop it first: npm run switch -- none',
    ];
    const files = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.ts'));
    for (const name of files) {
      const lines = (await readFile(join(folder, name), 'utf8')).split('\n');
      const literal = /npm run switch -- (dev|prod|none)(?!\|)/;
      const found = lines.filter(
        (line) => literal.test(line) && !allowed.some((text) => line.includes(text)),
      );
      assert.deepEqual(found, [], name);
    }
  });
});
