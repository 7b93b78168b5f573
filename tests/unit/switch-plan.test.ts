// The pure parts of a switch: the plan, dependencies, downtime, the stack file, and the hints that name a switch.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { stopCommand, switchCommand } from '../../tasks/lib/active.ts';
import type { ComposeService } from '../../tasks/lib/docker/compose.ts';
import { isLocalEndpoint } from '../../tasks/lib/docker/engine.ts';
import type { Container } from '../../tasks/lib/docker/objects.ts';
import { loginCommand, sshTarget } from '../../tasks/lib/docker/remote.ts';
import type { EnvironmentName, Project } from '../../tasks/lib/project.ts';
import { dependenciesOf, meets } from '../../tasks/lib/switch/dependencies.ts';
import type { EnvironmentState, Observation } from '../../tasks/lib/switch/observe.ts';
import { planStart, planSwitch, type SwitchTarget, switchSchema } from '../../tasks/lib/switch/plan.ts';
import { downtimeOf, type Sample } from '../../tasks/lib/switch/probe.ts';
import { switchSteps } from '../../tasks/lib/switch/run.ts';
import { stackFile } from '../../tasks/lib/switch/swarm.ts';

function container(changes: Partial<Container> = {}): Container {
  return {
    ...{ id: 'c1', name: 'app-prod', state: 'running', health: 'healthy', imageId: 'sha256:1' },
    ...{ exitCode: 0, labels: {}, restartPolicy: 'always', ...changes },
  } as Container;
}

type Changes = Partial<EnvironmentState>;

function state(name: EnvironmentName, changes: Changes = {}): EnvironmentState {
  const well = { container: container({ name: `app-${name}` }), health: { status: 200, body: {} } };
  return { containerName: `app-${name}`, url: '', outdated: false, ...well, ...changes };
}

const project = {
  project: { name: 'app', variable_prefix: 'X' },
  environments: { dev: { service: 'dev' }, prod: { service: 'prod' } },
} as unknown as Project;

const of = (changes: Partial<Container>): Changes => ({ container: container(changes) });
const none = { container: undefined, health: undefined };
const stopped = { ...of({ name: 'app-dev', state: 'exited', restartPolicy: 'no' }), health: undefined };

describe('how an environment is started', () => {
  const cases: [what: string, change: Changes, how: string | undefined][] = [
    ['nothing there', none, 'create'],
    ['right and well', {}, undefined],
    ['another image', of({ imageId: 'sha256:2' }), 'replace'],
    ['another configuration', { outdated: true }, 'replace'],
    ['right, but stopped', of({ state: 'exited' }), 'resume'],
    ['stopped, its network is gone', { ...of({ state: 'exited' }), cannotStart: 'x' }, 'replace'],
    ['stopped and another image', of({ state: 'exited', imageId: 'x' }), 'replace'],
    ['made and never started', of({ state: 'created' }), 'replace'],
    ['paused', of({ state: 'paused' }), 'replace'],
    ['answers 503', { health: { status: 503, body: {} } }, 'replace'],
    ['does not answer', { health: { status: 0, body: {}, error: 'ECONNREFUSED' } }, 'replace'],
    ['unhealthy by its own check', of({ health: 'unhealthy' }), 'replace'],
    ['under another name', of({ name: 'app-prod.before' }), 'replace'],
  ];
  for (const [what, change, how] of cases)
    it(what, () => assert.equal(planStart(state('prod', change), 'sha256:1')?.how, how));
});

describe('the plan', () => {
  type Active = Observation['active'];
  const services = { dev: { restart: 'no' }, prod: { restart: 'always' } } as Record<
    EnvironmentName,
    ComposeService
  >;
  const plan = (from: Active, dev: Changes, prod: Changes, target: Partial<SwitchTarget>) => {
    const environments = { dev: state('dev', dev), prod: state('prod', prod) };
    const seen = { observed: { active: from, prodTag: 'v1', environments }, services, containers: [] };
    const chosen = { active: 'both' as const, prodTag: 'v1', imageIds: {}, images: {}, ...target };
    const data = planSwitch(seen, chosen);
    assert.deepEqual(switchSchema.parse(JSON.parse(JSON.stringify(data))), data, 'it survives the journal');
    return data;
  };
  const looping = of({ state: 'restarting', restartPolicy: 'no' });
  const byHand = { ...of({ state: 'exited', restartPolicy: 'always' }), health: undefined };
  const created = 'create-prod start-prod prove-prod take-over-prod stop-dev remember';
  const replaced = 'create-prod retire-prod start-prod prove-prod take-over-prod remember remove-prod';
  type Row = [what: string, from: Active, dev: Changes, prod: Changes, to: Active, steps: string];
  const rows: Row[] = [
    ['starts, then stops, remembers last', 'dev', {}, none, 'prod', created],
    ['keeps the old container until all is done', 'prod', stopped, { outdated: true }, 'prod', replaced],
    ['starts a stopped one', 'prod', stopped, {}, 'both', 'start-dev prove-dev take-over-dev remember'],
    ['has nothing to do for prod', 'prod', stopped, {}, 'prod', ''],
    ['has nothing to do for both', 'both', {}, {}, 'both', ''],
    ['has nothing to do for none', 'none', stopped, none, 'none', ''],
    ['stops both, also what runs in a circle', 'both', {}, looping, 'none', 'stop-dev stop-prod remember'],
    ['stops what a restart of the engine would start', 'none', stopped, byHand, 'none', 'stop-prod remember'],
    ['only remembers where only .env is behind', 'dev', stopped, {}, 'prod', 'remember'],
  ];
  const stepsOf = (...planned: Parameters<typeof plan>) =>
    switchSteps(project, plan(...planned), async () => assert.fail('planning does not need it'))
      .map(({ name }) => name)
      .join(' ');
  for (const [what, from, dev, prod, active, steps] of rows)
    it(what, () => assert.equal(stepsOf(from, dev, prod, { active }), steps));
  it('fetches first', () =>
    assert.match(stepsOf('prod', {}, none, { prodTag: 'v2', fetch: 'pull' }), /^fetch create-prod /));

  const kept: [what: string, dev: Changes, keepsDev: boolean, started: string[]][] = [
    ['replaces a dev with an older latest', {}, false, ['replace dev']],
    ['keeps it where only the release of prod was chosen', {}, true, []],
    ['does not keep one that is stopped', stopped, true, ['replace dev']],
  ];
  for (const [what, dev, keepsDev, started] of kept) {
    it(what, () => {
      const imageIds = { dev: 'sha256:newer', prod: 'sha256:1' };
      const { starts } = plan('both', dev, {}, { imageIds, keepsDev });
      const found = starts.map(({ how, environment }) => `${how} ${environment}`);
      assert.deepEqual(found, started);
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
    assert.deepEqual(dependenciesOf(project, services, ['prod']), [
      { service: 'db', neededBy: 'prod and job', conditions: ['service_healthy', 'service_started'] },
      { service: 'job', neededBy: 'prod', conditions: ['service_completed_successfully'] },
    ]);
  });
  const exited = (exitCode: number) => container({ state: 'exited', exitCode, health: undefined });
  const cases: [condition: string, container: Container, met: RegExp][] = [
    ['started', container({ health: 'starting' }), /^true/],
    ['started', exited(0), /^true/],
    ['started', exited(1), /exited with code 1/],
    ['healthy', container({ health: 'starting' }), /^false/],
    ['healthy', container(), /^true/],
    ['healthy', container({ health: 'unhealthy' }), /unhealthy/],
    ['healthy', container({ health: undefined }), /no health check/],
    ['completed_successfully', container(), /^false/],
    ['completed_successfully', exited(0), /^true/],
    ['completed_successfully', exited(3), /exited with code 3/],
  ];
  for (const [condition, found, met] of cases)
    it(`${condition}: ${found.state} ${found.health ?? found.exitCode}`, () =>
      assert.match(String(meets(found, `service_${condition}`)), met));
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
    command: null,
    tmpfs: ['/tmp:mode=1777,size=256m'],
    configs: [{ source: 'app', target: '/etc/app/app.json' }],
    secrets: [{ source: 'key', target: '/run/secrets/key', mode: '0400' }],
    ports: [{ mode: 'ingress', host_ip: '127.0.0.1', target: 8002, published: '8012', protocol: 'tcp' }],
    volumes: [{ type: 'bind', source: '/data', target: '/data', bind: { create_host_path: false } }],
    deploy: { resources: { limits: { cpus: 3, memory: '100' } } },
  };
  const file = fileURLToPath(import.meta.url);
  const make = async (nodes: number, change: object = {}, pulled?: string) => {
    const model = {
      name: 'app',
      services: { prod: { ...service, ...change } },
      networks: { net: { ipam: {} } },
      configs: { app: { name: 'x_app', file } },
      secrets: { key: { name: 'x_key', file } },
    };
    const { text, digest } = await stackFile(project, 'prod', model, { nodes, node: 'n1', pulled });
    const stack = JSON.parse(text);
    return { stack, digest, prod: stack.services.prod };
  };
  const stateless = { volumes: [] };
  const pulled = 'r/app@sha256:1';
  type Row = [what: string, nodes: number, change: object, wanted: [string, string, string, string[]]];
  const rows: Row[] = [
    ['one node has all and publishes the port', 1, {}, ['app:v1', 'host', 'stop-first', []]],
    ['local data keeps it on its node', 3, {}, ['app:v1', 'ingress', 'start-first', ['node.id==n1']]],
    ['else every node pulls the digest', 3, stateless, [pulled, 'ingress', 'start-first', []]],
  ];
  for (const [what, nodes, change, wanted] of rows) {
    it(`${what}; a failed update goes back by itself`, async () => {
      const { image, ports, deploy } = (await make(nodes, change, pulled)).prod;
      const { update_config: update, placement } = deploy;
      assert.deepEqual([image, ports[0].mode, update.order, placement.constraints], wanted);
      assert.equal(update.failure_action, 'rollback');
    });
  }

  const refused: [what: RegExp, nodes: number, change: object][] = [
    [/the other nodes cannot pull its image/, 3, stateless],
    [/other is no file/, 1, { configs: [{ source: 'other' }] }],
    [/it depends on other services/, 1, { depends_on: { db: { condition: 'service_started' } } }],
  ];
  for (const [message, nodes, change] of refused)
    it(`is refused: ${message.source}`, () =>
      assert.rejects(make(nodes, change), { code: 'swarm-unsupported', message }));

  it('names configs and secrets by their content, leaves out what a swarm does not know, keeps the rest', async () => {
    const { stack, digest, prod } = await make(1);
    assert.match(stack.configs.app.name, /^app_app_[0-9a-f]{12}$/);
    assert.equal(stack.configs.app.file, file);
    for (const key of ['restart', 'pull_policy', 'tmpfs', 'command']) assert.ok(!(key in prod), key);
    const { read_only, configs, secrets, ports, volumes, deploy } = prod;
    assert.deepEqual(
      { read_only, configs, secrets, ports, volumes },
      {
        read_only: true,
        configs: [{ source: 'app', target: '/etc/app/app.json', mode: 0o444 }],
        secrets: [{ source: 'key', target: '/run/secrets/key', mode: 0o400 }],
        ports: [{ target: 8002, published: 8012, protocol: 'tcp', mode: 'host' }],
        volumes: [
          { type: 'bind', source: '/data', target: '/data' },
          { type: 'tmpfs', target: '/tmp' },
        ],
      },
    );
    assert.deepEqual(deploy.resources.limits, { cpus: '3', memory: '100' });
    assert.equal(deploy.restart_policy.condition, 'any');
    assert.deepEqual(deploy.labels, { 'release-flow.stack': digest });
  });
});

describe('a hint never stops a running environment that it does not name', () => {
  const whileActive = (active?: string) =>
    ({ ...project, dotenv: active ? { X_ACTIVE_ENV: active } : {} }) as Project;
  const rows: [active: string | undefined, dev: string, prod: string, withoutProd: string][] = [
    [undefined, 'dev', 'prod', 'none'],
    ['none', 'dev', 'prod', 'none'],
    ['dev', 'dev', 'both', 'dev'],
    ['prod', 'both', 'prod', 'none'],
    ['both', 'both', 'both', 'dev'],
  ];
  for (const [active, dev, prod, withoutProd] of rows) {
    it(`while ${active ?? 'nothing'} is active`, () => {
      const now = whileActive(active);
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
