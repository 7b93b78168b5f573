// Where one machine is outgrown: the same services on a Docker swarm. The swarm itself replaces containers and
// takes a failed update back; here is what it is told, and what is made sure of afterwards.

import { createHash } from 'node:crypto';
import { z } from 'zod';
import { probe, run } from '../command.ts';
import { type ComposeModel, FILES_LABEL, type InjectedFile } from '../docker/compose.ts';
import { askEngine, docker } from '../docker/engine.ts';
import { askHealth, waitForHealth } from '../docker/health.ts';
import { updateDotenv } from '../dotenv.ts';
import { errorSummary, TaskError } from '../errors.ts';
import { timed, withHistory } from '../history.ts';
import { log } from '../log.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project, variableName } from '../project.ts';
import { pause, session, uninterrupted } from '../session.ts';
import { verifySwitch } from './checks.ts';
import { type ActiveEnvironment, environmentsOf, type Scene, survey } from './observe.ts';
import type { SwitchStep } from './plan.ts';
import { whileProbing } from './probe.ts';
import type { PlannedSwitch, SwitchReport } from './record.ts';
import { expectedHealth, startFailure } from './replace.ts';
import { afterFailure, verifyRestored, waitForAnswer } from './run.ts';
import { checkTarget, fetchRelease, type TargetCheck } from './target.ts';

interface SwarmService {
  name: EnvironmentName;
  image: string;
  replicas: number;
  /** The digest that it was deployed from. */
  deployed: string | undefined;
  /** `updating`, `completed`, `rollback_completed`, …; undefined before the first update. */
  update: string | undefined;
  updateMessage: string | undefined;
}

function swarmServiceName(project: Project, name: EnvironmentName): string {
  return `${project.project.name}_${project.environments[name].service}`;
}

/** Asks a manager of a swarm: the parsed answer, or undefined for 404. @throws TaskError where there is none */
async function askSwarm(path: string): Promise<unknown> {
  try {
    return await askEngine(path);
  } catch (error) {
    if (!(error instanceof TaskError) || !/not a swarm manager/.test(error.message)) throw error;
    throw new TaskError(`This engine is not a manager of a swarm: ${error.message}`, {
      code: 'no-swarm',
      hint: 'make it one: docker swarm init; or leave --engine swarm away',
    });
  }
}

/** How this swarm publishes ports: a single node does it itself, several share the mesh. @throws TaskError without one */
async function swarmPublish(): Promise<'host' | 'ingress'> {
  const nodes = z.array(z.unknown()).parse(await askSwarm('/nodes'));
  return nodes.length > 1 ? 'ingress' : 'host';
}

async function inspectService(project: Project, name: EnvironmentName): Promise<SwarmService | undefined> {
  const answer = await askSwarm(`/services/${encodeURIComponent(swarmServiceName(project, name))}`);
  if (answer === undefined) return undefined;
  const schema = z.object({
    Spec: z.object({
      Labels: z.record(z.string(), z.string()).default({}),
      Mode: z.object({ Replicated: z.object({ Replicas: z.number() }) }),
      TaskTemplate: z.object({ ContainerSpec: z.object({ Image: z.string() }) }),
    }),
    UpdateStatus: z.object({ State: z.string().optional(), Message: z.string().optional() }).nullish(),
  });
  const found = schema.parse(answer);
  return {
    name,
    image: found.Spec.TaskTemplate.ContainerSpec.Image,
    replicas: found.Spec.Mode.Replicated.Replicas,
    deployed: found.Spec.Labels[STACK_LABEL],
    update: found.UpdateStatus?.State,
    updateMessage: found.UpdateStatus?.Message,
  };
}

async function inspectServices(project: Project) {
  const [dev, prod] = await Promise.all(ENVIRONMENTS.map((name) => inspectService(project, name)));
  return { dev, prod } as Record<EnvironmentName, SwarmService | undefined>;
}

async function createObject({ kind, name, content }: StackObject): Promise<void> {
  if ((await probe(docker(kind, 'inspect', name))).ok) return;
  await run(docker(kind, 'create', name, '-'), { input: content });
}

/** Hands the stack to the swarm; returns at once. Images are those of the node: nobody is asked for them. */
async function deployStack(project: Project, { text, objects }: Stack): Promise<void> {
  for (const object of objects) await createObject(object);
  const flags = ['--detach=true', '--resolve-image', 'never', '--compose-file', '-'];
  await run(docker('stack', 'deploy', ...flags, project.project.name), { input: text });
}

// The containers of a service in a swarm, which calls them tasks: what they are, and how many there shall be.

interface SwarmContainer {
  id: string;
  /** What the swarm wants it to be: `running`, `ready` (to be started next), `shutdown`. */
  desired: string;
  /** What it is: `running`, `failed`, `rejected`, `pending`, … */
  state: string;
  error: string;
}

/** All that the swarm still knows of, the newest first; it forgets old ones. */
async function swarmContainers(project: Project, name: EnvironmentName): Promise<SwarmContainer[]> {
  const schema = z.array(
    z.object({
      ID: z.string(),
      CreatedAt: z.string(),
      DesiredState: z.string(),
      Status: z.object({ State: z.string(), Err: z.string().default('') }),
    }),
  );
  const filters = encodeURIComponent(JSON.stringify({ service: [swarmServiceName(project, name)] }));
  const found = schema.parse((await askSwarm(`/tasks?filters=${filters}`)) ?? []);
  return found
    .sort((a, b) => b.CreatedAt.localeCompare(a.CreatedAt))
    .map(({ ID, DesiredState, Status }) => ({
      id: ID,
      desired: DesiredState,
      state: Status.State,
      error: Status.Err,
    }));
}

const isRunning = ({ state }: SwarmContainer) => state === 'running';

const hasFailed = ({ desired, state }: SwarmContainer) =>
  desired === 'shutdown' && ['failed', 'rejected'].includes(state);

/** It found no place before it was no longer wanted. */
const neverBegan = ({ desired, state }: SwarmContainer) => desired === 'shutdown' && state === 'pending';

const SCALED_WITHIN_MS = 30_000;

/** Changes how many containers a service has, and waits until that many run. */
async function scaleService(project: Project, name: EnvironmentName, replicas: number): Promise<void> {
  const service = swarmServiceName(project, name);
  await run(docker('service', 'scale', '--detach=true', `${service}=${replicas}`));
  if (session.dryRun) return;
  const deadline = Date.now() + SCALED_WITHIN_MS;
  for (;;) {
    if ((await swarmContainers(project, name)).filter(isRunning).length === replicas) return;
    if (Date.now() > deadline) {
      const message = `${service} does not come to ${replicas} containers`;
      throw new TaskError(message, { code: 'not-scaled', hint: `see: docker service ps ${service}` });
    }
    await pause(100);
  }
}

// Waiting for a swarm: until it runs what it was told, or has taken it back.

const UNDONE = /^(rollback_|paused)/;

interface Convergence {
  seconds: number;
  /** What failed before, and says nothing about this deployment: ids. */
  failedBefore: ReadonlySet<string>;
  /** Containers run that have to be replaced: only the swarm knows when it is done with that. */
  replaces: boolean;
}

/** Waits until the swarm runs what it was told. @throws TaskError if it gave up, or after `seconds` */
async function waitForConvergence(
  project: Project,
  name: EnvironmentName,
  options: Convergence,
): Promise<void> {
  // The swarm looks on for a while before it calls an update complete.
  const deadline = Date.now() + (options.seconds + MONITOR_SECONDS) * 1000;
  const failed = (why: string) =>
    new TaskError(`The swarm could not start ${name}: ${why}`, { code: 'unhealthy' });
  for (;;) {
    const service = await inspectService(project, name);
    if (!service) throw failed('the service is gone');
    const containers = await swarmContainers(project, name);
    const wanted = containers.filter(({ desired }) => desired === 'running');
    const failure = containers.find((one) => hasFailed(one) && !options.failedBefore.has(one.id));
    const reason = failure && `${failure.state}: ${failure.error}`;
    if (UNDONE.test(service.update ?? ''))
      throw failed(reason || service.updateMessage || 'it was rolled back');
    const settled = service.update === 'completed' || (service.update === undefined && !options.replaces);
    if (settled && wanted.filter(isRunning).length === service.replicas) return;
    if (reason && service.update === undefined) throw failed(reason);
    if (Date.now() > deadline)
      throw failed(`${wanted.map(({ state }) => state).join(', ')} after ${options.seconds} s`);
    await pause(200);
  }
}

/** The containers of a service that have failed until now: only new ones speak against an update. */
async function failedContainers(project: Project, name: EnvironmentName): Promise<Set<string>> {
  const exists = await inspectService(project, name);
  const containers = exists ? await swarmContainers(project, name) : [];
  return new Set(containers.filter(hasFailed).map(({ id }) => id));
}

const ROLLED_BACK_WITHIN_MS = 60_000;

/**
 * The service as it was `before` the deployment, with as many containers running; one that did not exist goes away.
 * The swarm's own word that it has rolled back is not enough: it may come before a container is started.
 */
async function rollBackService(
  project: Project,
  name: EnvironmentName,
  before: SwarmService | undefined,
): Promise<void> {
  const service = swarmServiceName(project, name);
  const now = await inspectService(project, name);
  if (!before) {
    if (now) await run(docker('service', 'rm', service));
    return;
  }
  // Where the deployment failed before it changed the service, a rollback would go one version further back.
  const isChanged = now?.deployed !== before.deployed || now?.replicas !== before.replicas;
  if (isChanged) await run(docker('service', 'rollback', '--detach=true', service));
  else if (!UNDONE.test(now?.update ?? '')) return;
  const deadline = Date.now() + ROLLED_BACK_WITHIN_MS;
  let startedAfresh = false;
  for (;;) {
    const { replicas, update, updateMessage } = (await inspectService(project, name)) ?? {};
    const containers = await swarmContainers(project, name);
    const running = containers.filter((one) => one.desired === 'running' && isRunning(one)).length;
    if (running === replicas && (update === 'rollback_completed' || startedAfresh)) return;
    // A failed container is replaced before the swarm rolls back. Where the replacement has found no place by then (its
    // port is not free), the swarm waits a whole minute for the end of what never began.
    if (!startedAfresh && replicas && running === 0 && containers.some(neverBegan)) {
      await scaleService(project, name, 0);
      await scaleService(project, name, replicas);
      startedAfresh = true;
    }
    if (Date.now() > deadline) {
      const hint = `see: docker service ps ${service}`;
      const message = `the swarm has not rolled it back within a minute: ${update}, ${updateMessage}`;
      throw new TaskError(message, { code: 'not-restored', hint });
    }
    await pause(200);
  }
}

// The plan of a switch on a swarm: what is deployed, what stops, everything checked before.

type Services = Record<EnvironmentName, SwarmService | undefined>;

interface Deployment {
  name: EnvironmentName;
  stack: Stack;
  /** Containers of it run now. */
  replaces: boolean;
  reason: string;
}

interface SwarmPlan {
  scene: Scene;
  check: TargetCheck;
  services: Services;
  /** Environments that answer now, and have to again if the switch fails. */
  answering: EnvironmentName[];
  deployments: Deployment[];
  /** Environments that run and shall not. */
  stops: EnvironmentName[];
  remember: boolean;
}

/** What has to be done, everything checked. @throws TaskError with every problem */
async function planSwarm(
  project: Project,
  active: ActiveEnvironment,
  prodTag: string | undefined,
): Promise<SwarmPlan> {
  const [publish, services, scene, check] = await Promise.all([
    swarmPublish(),
    inspectServices(project),
    survey(project, prodTag),
    checkTarget(project, active, prodTag),
  ]);
  const wanted = environmentsOf(active);
  const deployments = wanted.flatMap((name): Deployment[] => {
    const { service } = project.environments[name];
    const options = { project: project.project.name, replicas: { [service]: 1 }, publish };
    const stack = stackFile(scene.model, options);
    const reason = reasonToDeploy(services[name], stack, service);
    const present = services[name];
    const replaces = (present?.replicas ?? 0) > 0;
    return reason ? [{ name, stack, replaces, reason }] : [];
  });
  const starts = deployments.map(
    ({ name, reason }): SwitchStep => ({ kind: 'start', environment: name, how: 'create', reason }),
  );
  await verifySwitch(project, scene, check, starts);
  const running = ENVIRONMENTS.filter((name) => (services[name]?.replicas ?? 0) > 0);
  const answers = await Promise.all(running.map((name) => askHealth(scene.addresses[name])));
  const answering = running.filter((_, index) => answers[index]?.status === 200);
  const stops = running.filter((name) => !wanted.includes(name));
  const remember = scene.observed.active !== active || scene.observed.prodTag !== prodTag;
  return { scene, check, services, answering, deployments, stops, remember };
}

function reasonToDeploy(
  present: SwarmService | undefined,
  stack: Stack,
  service: string,
): string | undefined {
  if (!present) return 'the swarm has no such service';
  const labels = JSON.parse(stack.text).services[service].deploy.labels as Record<string, string>;
  if (present.deployed !== labels[STACK_LABEL]) return 'its image or configuration is another one';
  return present.replicas === 0 ? 'it is stopped' : undefined;
}

/** One line a step, for the plan that is shown. */
function describeSwarmPlan({ check, deployments, stops, remember }: SwarmPlan): string[] {
  const { active, prodTag, fetch } = check.target;
  return [
    ...(fetch ? [`${fetch} the image of ${prodTag}, which is not here`] : []),
    ...deployments.map(({ name, reason }) => `deploy ${name} to the swarm: ${reason}`),
    ...stops.map((name) => `stop ${name}`),
    ...(remember
      ? [`write .env: active environment ${active}${prodTag ? `, prod runs ${prodTag}` : ''}`]
      : []),
  ];
}

/** What the swarm runs, as lines and as data. */
export async function observeSwarm(
  project: Project,
): Promise<{ text: string; data: Record<string, unknown> }> {
  const services = await inspectServices(project);
  const entries = ENVIRONMENTS.map((name) => [name, services[name]] as const);
  const text = entries
    .map(
      ([name, service]) =>
        `${name.padEnd(5)} ${service ? `${service.image} × ${service.replicas}` : 'not there'}`,
    )
    .join('\n');
  return {
    text,
    data: {
      engine: 'swarm',
      environments: Object.fromEntries(entries.map(([name, service]) => [name, service ?? null])),
    },
  };
}

// A switch on a swarm: the same story as on one engine (what is wanted proves healthy, then the other one
// stops, .env changes last), told in the swarm's acts.

/** A switch on a swarm, planned and checked. @throws TaskError with every problem */
export async function swarmSwitch(
  project: Project,
  active: ActiveEnvironment,
  prodTag: string | undefined,
): Promise<PlannedSwitch> {
  const plan = await planSwarm(project, active, prodTag);
  return {
    steps: describeSwarmPlan(plan),
    warnings: [],
    run: (waitSeconds) => runSwarm(project, plan, waitSeconds),
    observe: () => observeSwarm(project),
  };
}

/** @throws TaskError after the swarm was told to go back; .env is then as it was */
async function runSwarm(
  project: Project,
  plan: SwarmPlan,
  waitSeconds: number | undefined,
): Promise<SwitchReport> {
  const report: SwitchReport = { phases: {}, gaps: {} };
  const { active, prodTag } = plan.check.target;
  const details = {
    from: plan.scene.observed.active,
    to: active,
    ...report,
    ...(prodTag ? { prod: prodTag } : {}),
  };
  await withHistory(project.root, 'switch', details, () =>
    whileProbing(session.dryRun ? {} : plan.scene.addresses, report.gaps, () =>
      carryOut(project, plan, report, waitSeconds),
    ),
  );
  return report;
}

async function carryOut(
  project: Project,
  plan: SwarmPlan,
  { phases }: SwitchReport,
  waitSeconds: number | undefined,
): Promise<void> {
  const { check, scene, deployments, stops } = plan;
  const { target, images } = check;
  const begun: Deployment[] = [];
  try {
    if (target.fetch && target.prodTag) {
      const step = { kind: 'fetch' as const, tag: target.prodTag, by: target.fetch };
      await timed(phases, 'fetch', () => fetchRelease(project, step, target, images));
    }
    for (const deployment of deployments) {
      begun.push(deployment);
      await timed(phases, `deploy ${deployment.name}`, () =>
        deploy(project, scene, check, deployment, waitSeconds),
      );
    }
    for (const name of stops) {
      log.step(`stop ${name}`);
      await timed(phases, `stop ${name}`, () => scaleService(project, name, 0));
    }
    await uninterrupted(() => remember(project, check));
  } catch (error) {
    await uninterrupted(() => afterFailure(error, () => goBack(project, plan, begun)));
    throw error;
  }
}

async function deploy(
  project: Project,
  scene: Scene,
  { images }: TargetCheck,
  { name, stack, reason, replaces }: Deployment,
  waitSeconds: number | undefined,
): Promise<void> {
  log.step(`deploy ${name}: ${reason}`);
  const seconds = waitSeconds ?? project.environments[name].start_timeout;
  try {
    const failedBefore = await failedContainers(project, name);
    await deployStack(project, stack);
    if (session.dryRun) return;
    await waitForConvergence(project, name, { seconds, failedBefore, replaces });
    const expected = expectedHealth(name, images[name]);
    const wait = { keys: project.health, expected, timeoutSeconds: seconds, givenUp: async () => undefined };
    await waitForHealth({ ...scene.addresses[name], ...wait });
    log.done(`${name} is healthy`);
  } catch (error) {
    throw await startFailure(name, '', error);
  }
}

async function remember(project: Project, { target }: TargetCheck): Promise<void> {
  await updateDotenv(project.root, {
    [variableName(project, 'ACTIVE_ENV')]: target.active,
    ...(target.prodTag ? { [variableName(project, 'PROD_TAG')]: target.prodTag } : {}),
  });
}

/** @throws TaskError, after everything was tried, where something does not answer as it did before */
async function goBack(
  project: Project,
  { scene, services, answering, stops }: SwarmPlan,
  begun: readonly Deployment[],
): Promise<void> {
  const acts = [
    ...begun.map(({ name }) => [name, () => rollBackService(project, name, services[name])] as const),
    ...stops.map((name) => [name, () => scaleService(project, name, services[name]?.replicas ?? 1)] as const),
  ];
  const failures: string[] = [];
  for (const [name, act] of acts) {
    log.step(`bring ${name} back`);
    try {
      await act();
      if (answering.includes(name)) await waitForAnswer(name, scene.addresses[name]);
    } catch (error) {
      failures.push(`${name}: ${errorSummary(error)}`);
    }
  }
  verifyRestored(failures, 'see: docker service ls; then switch again');
}

// The stack file for a swarm, made from the compose model: the same services, with what a swarm calls
// differently translated and what it does not know left out. Pure.

interface StackOptions {
  project: string;
  /** Service → how many containers it shall have; services that are not named are left out. */
  replicas: Record<string, number>;
  /** `host` where ports are published by the node itself: then two containers cannot share one. */
  publish: 'host' | 'ingress';
}

/** A container that fails so soon after it became healthy still makes the swarm take the update back. */
const MONITOR_SECONDS = 2;

/** A config or secret that must be there before the stack is deployed. Its name tells its content. */
interface StackObject {
  kind: 'config' | 'secret';
  name: string;
  content: Buffer;
}

interface Stack {
  text: string;
  objects: StackObject[];
}

/** Services carry this: what they were deployed from. */
const STACK_LABEL = 'release-flow.stack';

// What compose wrote; only the parts that differ are looked at.
// biome-ignore lint/suspicious/noExplicitAny: a service of the compose format, passed through
type Service = Record<string, any>;

const RESTART: Record<string, string> = { no: 'none', always: 'any', 'unless-stopped': 'any' };

/** What stack files do not have, or a swarm ignores. */
const UNKNOWN = [
  'container_name',
  'depends_on',
  'restart',
  'build',
  'pull_policy',
  'security_opt',
  'tmpfs',
  'scale',
];

export function stackFile(model: ComposeModel, options: StackOptions): Stack {
  const raw = JSON.parse(model.input) as {
    services: Record<string, Service>;
    networks?: object;
    volumes?: object;
  };
  const objects: StackObject[] = [];
  const services = Object.entries(options.replicas).map(([name]) => {
    const files = model.files[name] ?? [];
    const own = files.map((file) => stackObject(options.project, file));
    objects.push(...own);
    return [name, translate(raw.services[name]!, files, own, options, options.replicas[name] ?? 1)];
  });
  const named = (kind: string) =>
    Object.fromEntries(
      objects.filter((one) => one.kind === kind).map(({ name }) => [name, { name, external: true }]),
    );
  const networks = Object.fromEntries(
    Object.keys(raw.networks ?? {}).map((name) => [name, { driver: 'overlay', attachable: true }]),
  );
  const file = {
    version: '3.13',
    services: Object.fromEntries(services),
    networks,
    volumes: raw.volumes ?? {},
    configs: named('config'),
    secrets: named('secret'),
  };
  return { text: JSON.stringify(file, null, 2), objects };
}

/** Objects of a swarm cannot be changed: another content is another object. */
function stackObject(project: string, { source, content, secret }: InjectedFile): StackObject {
  const digest = createHash('sha256').update(content).digest('hex').slice(0, 12);
  return { kind: secret ? 'secret' : 'config', name: `${project}_${source}_${digest}`, content };
}

function translate(
  service: Service,
  files: readonly InjectedFile[],
  objects: readonly StackObject[],
  { publish }: StackOptions,
  replicas: number,
): Service {
  const folders = service.labels?.[FILES_LABEL]?.split(',') ?? [];
  const restart = String(service.restart ?? 'no');
  const order = publish === 'host' && service.ports?.length ? 'stop-first' : 'start-first';
  const update = { parallelism: 1, order, monitor: `${MONITOR_SECONDS}s`, max_failure_ratio: 0 };
  const kept = Object.entries(service).filter(([key, value]) => value !== null && !UNKNOWN.includes(key));
  const references = (kind: StackObject['kind']) =>
    objects.flatMap(({ kind: its, name }, index) =>
      its === kind ? [{ source: name, target: files[index]!.target, mode: files[index]!.mode }] : [],
    );
  const translated: Service = {
    ...Object.fromEntries(kept),
    ports: (service.ports ?? []).map((port: Service) => ({
      target: port.target,
      published: Number(port.published),
      protocol: port.protocol ?? 'tcp',
      mode: publish,
    })),
    volumes: volumesOf(service, folders),
    configs: references('config'),
    secrets: references('secret'),
    deploy: {
      resources: resourcesOf(service),
      replicas,
      update_config: { ...update, failure_action: 'rollback' },
      rollback_config: update,
      restart_policy: { condition: RESTART[restart] ?? 'on-failure', delay: '2s' },
    },
  };
  const { replicas: _, ...lasting } = translated.deploy;
  const digest = createHash('sha256')
    .update(JSON.stringify({ ...translated, deploy: lasting }))
    .digest('hex');
  translated.deploy.labels = { [STACK_LABEL]: digest };
  return translated;
}

function volumesOf(service: Service, folders: readonly string[]): Service[] {
  const volumes = ((service.volumes ?? []) as Service[])
    .filter(({ target }) => !folders.includes(target))
    .map(({ type, source, target, read_only }) => ({
      type,
      source,
      target,
      ...(read_only ? { read_only } : {}),
    }));
  const temporary = ((service.tmpfs ?? []) as string[]).map((entry) => {
    const [target, flags = ''] = entry.split(':');
    const size = /size=(\d+)([kmg]?)/i.exec(flags);
    const bytes = size ? Number(size[1]) * 1024 ** ' kmg'.indexOf((size[2] || ' ').toLowerCase()) : undefined;
    return { type: 'tmpfs', target, ...(bytes ? { tmpfs: { size: bytes } } : {}) };
  });
  return [...volumes, ...temporary];
}

function resourcesOf(service: Service): Service {
  const resources: Service = structuredClone(service.deploy?.resources ?? {});
  for (const part of Object.values(resources)) if (part.cpus !== undefined) part.cpus = String(part.cpus);
  return resources;
}
