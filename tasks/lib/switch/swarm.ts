// Where one machine is outgrown: the same services on a Docker swarm. The resolved compose model goes to
// `docker stack deploy`; the swarm replaces containers, watches their health and rolls back an update that fails.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { type ActiveEnvironment, environmentsOf } from '../active.ts';
import { probe, run } from '../command.ts';
import { modelInput, type ResolvedModel, type ResolvedService, resolvedModel } from '../docker/compose.ts';
import { docker, queryEngine } from '../docker/engine.ts';
import { waitForHealth } from '../docker/health.ts';
import { TaskError } from '../errors.ts';
import { ENVIRONMENTS, type EnvironmentName, PROJECT_FILE, type Project } from '../project.ts';
import { session } from '../session.ts';
import type { Step } from '../steps.ts';
import { checkTarget, registryDigest, verifySwitch } from './checks.ts';
import { survey, withHealthAddress } from './observe.ts';
import { choiceSchema, environment, planChoice } from './plan.ts';
import { expectedHealth } from './replace.ts';
import { choiceSteps, type PlannedSwitch, plannedSwitch, type Runner, resumeWith } from './run.ts';

/** A rollback may need a minute more: so long a swarm waits for a container that it made and never started. */
const SETTLE_MS = 150_000;
/** Services carry this: the digest of what they were deployed from. */
const STACK_LABEL = 'release-flow.stack';

const deployed = z.object({ image: z.string(), digest: z.string().nullable(), replicas: z.number() });
const schema = choiceSchema.extend({
  /** What the swarm ran. */
  before: z.partialRecord(environment, deployed),
  deploys: z.array(environment),
  stops: z.array(environment),
});
type SwarmData = z.output<typeof schema>;

const nameOf = ({ project, environments }: Project, name: EnvironmentName) =>
  `${project.name}_${environments[name].service}`;

const engineInfo = z.object({
  Swarm: z.object({ ControlAvailable: z.boolean(), NodeID: z.string(), Nodes: z.number().default(1) }),
});
const listedService = z.object({
  Spec: z.object({
    Name: z.string(),
    Labels: z.record(z.string(), z.string()).default({}),
    Mode: z.object({ Replicated: z.object({ Replicas: z.number() }) }),
    TaskTemplate: z.object({ ContainerSpec: z.object({ Image: z.string() }) }),
  }),
});

/** The nodes, and what runs of the project. @throws TaskError where this engine is no manager of a swarm */
async function readSwarm(project: Project) {
  const { ControlAvailable, NodeID: node, Nodes: nodes } = engineInfo.parse(await queryEngine('/info')).Swarm;
  const hint = 'make it one: docker swarm init; or leave out --engine swarm';
  if (!ControlAvailable)
    throw new TaskError('This engine is not a manager of a swarm', { code: 'no-swarm', hint });
  const filters = JSON.stringify({ label: [`com.docker.stack.namespace=${project.project.name}`] });
  const listed = await queryEngine(`/services?filters=${encodeURIComponent(filters)}`);
  const found = z.array(listedService).parse(listed);
  const services = ENVIRONMENTS.flatMap((name) => {
    const { Spec } = found.find((one) => one.Spec.Name === nameOf(project, name)) ?? {};
    if (!Spec) return [];
    const [image, replicas] = [Spec.TaskTemplate.ContainerSpec.Image, Spec.Mode.Replicated.Replicas];
    return [[name, { image, replicas, digest: Spec.Labels[STACK_LABEL] ?? null }]];
  });
  return { node, nodes, services: Object.fromEntries(services) as SwarmData['before'] };
}
type Swarm = Awaited<ReturnType<typeof readSwarm>>;

/** What the swarm runs, in words and as data. */
export async function observeSwarm(project: Project) {
  const { dev = null, prod = null } = (await readSwarm(project)).services;
  const describe = (found: typeof dev) => (found ? `${found.image} × ${found.replicas}` : 'no service');
  const text = `dev   ${describe(dev)}\nprod  ${describe(prod)}`;
  return { text, data: { engine: 'swarm', environments: { dev, prod } } };
}

/** Deploys, and waits until /health comes from what was deployed. @throws TaskError with the swarm's own reason */
async function deploy(project: Project, name: EnvironmentName, data: SwarmData, stack: Stack) {
  const timeoutSeconds = data.waitSeconds ?? project.environments[name].start_timeout;
  // A failed update comes with the swarm's own rollback, a first deployment does not.
  const timeoutMs = timeoutSeconds * 1000 + (data.before[name] ? SETTLE_MS : 0);
  const options = ['--detach=false', '--resolve-image', 'never', '--with-registry-auth'];
  const command = docker('stack', 'deploy', ...options, '--compose-file', '-', project.project.name);
  try {
    await run(command, { input: stack.text, timeoutMs });
    const expected = expectedHealth(name, data.images[name]);
    // A dry run has deployed nothing that could answer.
    const givenUp = async () => (session.withheld ? 'nothing was deployed' : undefined);
    const wait = { keys: project.health, expected, timeoutSeconds, givenUp };
    await withHealthAddress(project, name, (address) => waitForHealth({ ...address, ...wait }));
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    const cause = await causeOfFailure(nameOf(project, name), stack.image);
    const message = `Cannot start ${name}: ${cause ? `${cause}\n` : ''}${error.message}`;
    const hint = 'rolled back to what the swarm ran before; .env is unchanged';
    throw new TaskError(message, { code: 'unhealthy', hint, cause: error });
  }
}

/** Why the image's last container failed. One that only waits, perhaps for the port of that one, is no cause. */
async function causeOfFailure(service: string, image: string): Promise<string | undefined> {
  const format = '{{.Image}} {{.CurrentState}}: {{.Error}}';
  const { stdout } = await probe(docker('service', 'ps', '--no-trunc', '--format', format, service));
  const own = stdout.split('\n').filter((line) => line.startsWith(`${image} `) && !line.endsWith(': '));
  const cause = own.find((line) => / (Failed|Rejected) /.test(line)) ?? own[0];
  return cause?.slice(image.length + 1);
}

/** Waits until that many containers run; those that stop are the swarm's business. */
async function scale(project: Project, name: EnvironmentName, replicas: number): Promise<void> {
  await run(docker('service', 'scale', `${nameOf(project, name)}=${replicas}`), { timeoutMs: SETTLE_MS });
}

async function rollBack(project: Project, name: EnvironmentName, { before }: SwarmData): Promise<void> {
  const [was, now] = [before[name], (await readSwarm(project)).services[name]];
  if (!now) return;
  if (!was) return void (await run(docker('service', 'rm', nameOf(project, name))));
  // Where the deployment failed before it changed the service, a rollback would go one version further back.
  if (now.digest !== was.digest)
    await run(docker('service', 'rollback', nameOf(project, name)), { timeoutMs: SETTLE_MS });
  await scale(project, name, was.replicas);
}

function swarmRunner(project: Project, stacks: Record<string, Stack> = {}): Runner<SwarmData> {
  const step = (verb: string, name: EnvironmentName, apply: Step<SwarmData>['apply']) => {
    const undo = (data: SwarmData) => rollBack(project, name, data);
    return { name: `${verb}-${name}`, title: `${verb} ${name}`, apply, undo };
  };
  const steps = (planned: SwarmData) =>
    choiceSteps(project, planned, [
      ...planned.deploys.map((name) =>
        step('deploy', name, (data) => deploy(project, name, data, stacks[name]!)),
      ),
      ...planned.stops.map((name) => step('stop', name, () => scale(project, name, 0))),
    ]);
  return { journal: 'switch@swarm', flags: ' --engine swarm', schema, steps };
}

export function resumeSwarm(project: Project): Promise<boolean> {
  return resumeWith(project, swarmRunner(project));
}

/** A switch on a swarm, planned and checked. @throws TaskError with every problem */
export async function swarmSwitch(
  project: Project,
  active: ActiveEnvironment,
  prodTag: string | undefined,
): Promise<PlannedSwitch> {
  const [swarm, snapshot, check, model] = await Promise.all([
    readSwarm(project),
    survey(project, prodTag),
    checkTarget(project, active, prodTag),
    resolvedModel(project, prodTag),
  ]);
  const before = swarm.services;
  const stacks: Record<string, Stack> = {};
  for (const name of environmentsOf(active)) {
    const pulled = registryDigest(project, name, check.target);
    stacks[name] = await stackFile(project, name, model, { ...swarm, pulled });
  }
  const deploys = environmentsOf(active).filter(
    (name) => before[name]?.digest !== stacks[name]!.digest || before[name].replicas === 0,
  );
  const stops = ENVIRONMENTS.filter((name) => before[name]?.replicas && !stacks[name]);
  const starts = deploys.map((name) => ({ environment: name, how: 'create' as const }));
  await verifySwitch(project, snapshot, check, starts);
  const data: SwarmData = { ...planChoice(snapshot.observed, check.target), before, deploys, stops };
  const runner = swarmRunner(project, stacks);
  return plannedSwitch(project, runner, data, snapshot.addresses, () => observeSwarm(project));
}

// The stack file of one environment: what a swarm calls differently is translated, what it does not know is left out.

type Stack = Awaited<ReturnType<typeof stackFile>>;
/** `node` has the local images, volumes and directories; `pulled` is the image by its digest in a registry. */
type Placement = Pick<Swarm, 'node' | 'nodes'> & { pulled: string | undefined };

const sha256 = (content: string | Buffer) => createHash('sha256').update(content).digest('hex');

/** @throws TaskError for what a swarm cannot do, or another node has not */
export async function stackFile(
  { project, environments }: Project,
  environment: EnvironmentName,
  model: ResolvedModel,
  placement: Placement,
) {
  const name = environments[environment].service;
  const service = stackService(model.services[name]!, placement);
  const refusal = (why: string, hint: string) =>
    new TaskError(`Cannot run ${name} on a swarm: ${why}`, { code: 'swarm-unsupported', hint });
  if (model.services[name]!.depends_on)
    throw refusal('it depends on other services', 'deploy those by themselves, and leave out depends_on');
  const push = `set [image] registry in ${PROJECT_FILE} and push the image: npm run build-push -- --push`;
  if (!service.image) throw refusal('the other nodes cannot pull its image', push);
  const contents = async (kind: 'configs' | 'secrets') => {
    const objects = service[kind].map(async ({ source }) => {
      const { file } = model[kind]?.[source] ?? {};
      if (!file) throw refusal(`${source} is no file`, 'name one: `file:` in the compose file');
      // A config or secret of a swarm cannot be changed: another content is another name.
      const content = sha256(await readFile(file)).slice(0, 12);
      return [source, { file, name: `${project.name}_${source}_${content}` }];
    });
    return Object.fromEntries(await Promise.all(objects));
  };
  const [configs, secrets] = [await contents('configs'), await contents('secrets')];
  const digest = sha256(JSON.stringify([service, configs, secrets]));
  service.deploy.labels = { [STACK_LABEL]: digest };
  const overlay = { driver: 'overlay', attachable: true };
  const networks = Object.fromEntries(Object.keys(model.networks ?? {}).map((name) => [name, overlay]));
  const { volumes = {} } = model;
  const stack = { version: '3.13', services: { [name]: service }, networks, volumes, configs, secrets };
  return { text: modelInput(stack), digest, image: service.image };
}

const UNKNOWN = ['container_name', 'restart', 'build', 'pull_policy', 'security_opt', 'tmpfs', 'scale'];

function stackService(service: ResolvedService, { nodes, node, pulled }: Placement) {
  const known = Object.entries(service).filter(([key, value]) => value !== null && !UNKNOWN.includes(key));
  const mounts = (service.volumes ?? []).map(({ type, source, target, read_only }) => ({
    ...{ type, source, target, read_only },
  }));
  // Their size is limited by the container's memory.
  const empty = (service.tmpfs ?? []).map((entry) => ({ type: 'tmpfs', target: entry.split(':')[0] }));
  // What only this node has keeps the service here; else every node must be able to pull the image.
  const isPinned = nodes > 1 && mounts.length > 0;
  const ports = (service.ports ?? []).map(({ target, published, protocol }) => ({
    ...{ target, published: Number(published), protocol, mode: nodes > 1 ? 'ingress' : 'host' },
  }));
  const order = nodes === 1 && ports.length > 0 ? 'stop-first' : 'start-first';
  // A container that fails within two seconds of becoming healthy still makes the swarm roll back.
  const update = { parallelism: 1, order, monitor: '2s', max_failure_ratio: 0 };
  const files = (references: ResolvedService['configs'] = []) =>
    references.map(({ mode = 0o444, ...one }) => ({
      ...{ ...one, mode: typeof mode === 'number' ? mode : Number.parseInt(mode, 8) },
    }));
  const { limits, reservations } = service.deploy?.resources ?? {};
  const amounts = (one: typeof limits) => one && { ...one, ...(one.cpus ? { cpus: String(one.cpus) } : {}) };
  const { restart = 'no' } = service;
  const condition = { no: 'none', always: 'any', 'unless-stopped': 'any' }[restart] ?? 'on-failure';
  return {
    ...(Object.fromEntries(known) as ResolvedService),
    image: nodes > 1 && !isPinned ? pulled : service.image,
    ...{ ports, volumes: [...mounts, ...empty] },
    ...{ configs: files(service.configs), secrets: files(service.secrets) },
    deploy: {
      ...{ replicas: 1, rollback_config: update, update_config: { ...update, failure_action: 'rollback' } },
      restart_policy: { condition, delay: '2s' },
      placement: { constraints: isPinned ? [`node.id==${node}`] : [] },
      resources: { limits: amounts(limits), reservations: amounts(reservations) },
      labels: {},
    },
  };
}
