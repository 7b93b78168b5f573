// The pure parts of a switch: from what is to what should be, what a directory must be like, how long nobody
// answered, and what a swarm is told.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ComposeModel, ComposeService } from '../../tasks/lib/docker/compose.ts';
import { isLocalEndpoint } from '../../tasks/lib/docker/engine.ts';
import type { Container, Image } from '../../tasks/lib/docker/objects.ts';
import { loginCommand, sshTarget } from '../../tasks/lib/docker/remote.ts';
import type { EnvironmentName, Project } from '../../tasks/lib/project.ts';
import { type DataDirectory, dataProblems } from '../../tasks/lib/switch/checks.ts';
import type { EnvironmentState, Observation } from '../../tasks/lib/switch/observe.ts';
import { planStart, planSwitch } from '../../tasks/lib/switch/plan.ts';
import { type Answered, gapsOf, total } from '../../tasks/lib/switch/probe.ts';
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

const stopped = { container: container({ name: 'app-dev', state: 'exited' }), health: undefined };

describe('how an environment is started', () => {
  const cases: [what: string, change: Partial<EnvironmentState>, how: string | undefined][] = [
    ['nothing there', { container: undefined, health: undefined }, 'create'],
    ['right and well', {}, undefined],
    ['another image', { container: container({ imageId: 'sha256:2' }) }, 'replace'],
    ['another configuration', { outdated: true }, 'replace'],
    ['right, but stopped', { container: container({ state: 'exited' }) }, 'resume'],
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
  const observed = (
    active: Observation['active'],
    dev: Partial<EnvironmentState>,
    prod: Partial<EnvironmentState>,
  ) => ({
    active,
    prodTag: 'v1',
    environments: { dev: state('dev', dev), prod: state('prod', prod) },
  });
  const kinds = (now: Observation, active: Observation['active'], prodTag = 'v1', fetch?: 'pull') =>
    planSwitch(now, { active, prodTag, imageIds: {}, fetch }).map((step) =>
      'environment' in step ? `${step.kind} ${step.environment}` : step.kind,
    );

  it('starts before it stops, and remembers last', () => {
    assert.deepEqual(kinds(observed('dev', {}, { container: undefined }), 'prod'), [
      'start prod',
      'stop dev',
      'remember',
    ]);
  });
  it('fetches first', () => {
    assert.deepEqual(kinds(observed('dev', {}, { container: undefined }), 'prod', 'v2', 'pull'), [
      'fetch',
      'start prod',
      'stop dev',
      'remember',
    ]);
  });
  it('has nothing to do when all is as it should be', () => {
    assert.deepEqual(kinds(observed('prod', stopped, {}), 'prod'), []);
    assert.deepEqual(kinds(observed('both', {}, {}), 'both'), []);
    assert.deepEqual(kinds(observed('none', stopped, { container: undefined }), 'none'), []);
  });
  it('stops both for none, also what runs in a circle', () => {
    const looping = { container: container({ state: 'restarting' }) };
    assert.deepEqual(kinds(observed('both', {}, looping), 'none'), ['stop dev', 'stop prod', 'remember']);
  });
  it('only remembers where only .env is behind', () => {
    assert.deepEqual(kinds(observed('dev', stopped, {}), 'prod'), ['remember']);
    assert.deepEqual(kinds(observed('prod', stopped, {}), 'prod', 'v2'), ['remember']);
  });
});

describe('how long nobody answered', () => {
  const samples = (text: string, step = 10): Answered[] =>
    [...text].map((mark, index) => ({ asked: index * step, over: index * step + 5, answered: mark === '+' }));
  it('counts from the first refusal to the next answer, and only between answers', () => {
    assert.equal(total(gapsOf(samples('+++'))), 0);
    assert.equal(total(gapsOf(samples('++--+'))), 25);
    assert.equal(total(gapsOf(samples('--++'))), 0, 'not there yet');
    assert.equal(total(gapsOf(samples('++--'))), 0, 'stopped for good');
    assert.equal(total(gapsOf(samples('+-+-+'))), 30);
    assert.deepEqual(gapsOf([]), []);
  });
  it('of two ports counts only when neither answers', () => {
    assert.equal(total(neitherAnswered([samples('+++--'), samples('--+++')])), 0);
    assert.equal(total(neitherAnswered([samples('++---'), samples('---++')])), 15);
    assert.equal(total(neitherAnswered([samples('+++--'), []])), 0, 'the other one is not asked');
  });
});

describe('the data directory', () => {
  const project = {
    project: { variable_prefix: 'X' },
    data: { format_label: 'format', format_key: 'n', format_file: 'f' },
  } as unknown as Project;
  const image = { labels: { format: '1' } } as unknown as Image;
  const good: DataDirectory = { mode: 0o700, uid: 1000, gid: 1000, format: 1, free: 2 ** 40 };
  const cases: [what: string, data: DataDirectory | undefined, problem: RegExp | undefined][] = [
    ['good', good, undefined],
    ['without a format yet', { ...good, format: undefined }, undefined],
    ['not there', undefined, /\/d is not there/],
    ['open to others', { ...good, mode: 0o755 }, /mode 0755, expected 0700/],
    ['of somebody else', { ...good, uid: 0 }, /belongs to 0:1000, but prod runs as 1000:1000/],
    ['of a newer format', { ...good, format: 2 }, /has format 2; the image of prod reads up to 1/],
    ['on a full disk', { ...good, free: 2 ** 20 }, /full: 1 MB free/],
  ];
  for (const [what, data, problem] of cases) {
    it(what, () => {
      const subject = { environment: 'prod' as const, path: '/d', user: '1000:1000', image };
      const found = dataProblems(project, subject, data).map(({ message }) => message);
      assert.equal(found.length, problem ? 1 : 0, found.join());
      if (problem) assert.match(found[0]!, problem);
    });
  }
});

describe('what compose says', () => {
  it('durations', () => {
    const cases: [string | undefined, number | undefined][] = [
      ['30s', 30_000],
      ['1m30s', 90_000],
      ['500ms', 500],
      ['1.5s', 1500],
      ['1h0m0s', 3_600_000],
      ['', undefined],
      ['soon', undefined],
      [undefined, undefined],
    ];
    for (const [text, ms] of cases) assert.equal(parseDuration(text), ms, text);
  });
  it('the worst case of a start is its boot, the next check, its patience, and the stop before', () => {
    const service = {
      health: { interval: 30_000, timeout: 5000, startInterval: 500, startPeriod: 30_000 },
      stopGrace: 10_000,
    } as ComposeService;
    assert.equal(worstCase(service, 1, false), 6.5);
    assert.equal(worstCase(service, 1, true), 16.5);
    assert.equal(
      worstCase({ ...service, health: { ...service.health, startPeriod: undefined } }, undefined, false),
      35,
    );
  });
});

describe('reaching an engine', () => {
  it('is direct through a socket, and through one ssh login for another machine', () => {
    assert.ok(isLocalEndpoint('unix:///var/run/docker.sock'));
    assert.ok(!isLocalEndpoint('ssh://me@pi'));
    assert.deepEqual(sshTarget(new URL('ssh://me@pi:2222')), ['-l', 'me', '-p', '2222', '--', 'pi']);
    assert.equal(loginCommand(new URL('ssh://pi'), '/t/c').at(-2), 'pi');
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
    labels: { 'release-flow.files': '/etc/app' },
    ports: [{ mode: 'ingress', host_ip: '127.0.0.1', target: 8002, published: '8012', protocol: 'tcp' }],
    volumes: [
      { type: 'volume', target: '/etc/app' },
      { type: 'bind', source: '/data', target: '/data', bind: { create_host_path: false } },
    ],
    deploy: { resources: { limits: { cpus: 3, memory: '100' } } },
  };
  const model = {
    input: JSON.stringify({
      services: { prod: service },
      networks: { net: { ipam: {} } },
      volumes: { models: { name: 'm' } },
    }),
    files: {
      prod: [
        {
          source: 'app',
          secret: false,
          target: '/etc/app/app.json',
          content: Buffer.from('{}'),
          mode: 0o444,
        },
        { source: 'key', secret: true, target: '/run/secrets/key', content: Buffer.from('k'), mode: 0o400 },
      ],
    },
  } as unknown as ComposeModel;
  const make = (publish: 'host' | 'ingress', replicas = 1) => {
    const { text, objects } = stackFile(model, { project: 'x', replicas: { prod: replicas }, publish });
    return { file: JSON.parse(text), objects };
  };

  it('updates stop-first where the node publishes the port, start-first behind the mesh, and goes back by itself', () => {
    for (const [publish, order] of [
      ['host', 'stop-first'],
      ['ingress', 'start-first'],
    ] as const) {
      const { deploy, ports } = make(publish).file.services.prod;
      assert.deepEqual(
        [deploy.update_config.order, deploy.update_config.failure_action],
        [order, 'rollback'],
      );
      assert.deepEqual(ports, [{ target: 8002, published: 8012, protocol: 'tcp', mode: publish }]);
    }
  });
  it('makes configs and secrets objects that are named by their content', () => {
    const { file, objects } = make('host');
    const [config, secret] = objects.map(({ name }) => name);
    assert.match(config!, /^x_app_[0-9a-f]{12}$/);
    assert.deepEqual(file.services.prod.configs, [
      { source: config, target: '/etc/app/app.json', mode: 0o444 },
    ]);
    assert.deepEqual(file.services.prod.secrets, [
      { source: secret, target: '/run/secrets/key', mode: 0o400 },
    ]);
    assert.deepEqual(file.configs[config!], { name: config, external: true });
    assert.ok(!JSON.stringify(file).includes('Buffer'));
  });
  it('leaves out what a swarm does not know, and keeps the rest', () => {
    const { prod } = make('host').file.services;
    for (const key of ['restart', 'pull_policy', 'security_opt', 'tmpfs', 'command'])
      assert.ok(!(key in prod), key);
    assert.deepEqual(prod.volumes, [
      { type: 'bind', source: '/data', target: '/data' },
      { type: 'tmpfs', target: '/tmp', tmpfs: { size: 256 * 2 ** 20 } },
    ]);
    assert.deepEqual(prod.deploy.resources.limits, { cpus: '3', memory: '100' });
    assert.equal(prod.deploy.restart_policy.condition, 'any');
  });
  it('carries a digest that does not depend on the number of containers', () => {
    const label = (replicas: number) => make('host', replicas).file.services.prod.deploy.labels;
    assert.deepEqual(label(1), label(0));
  });
});
