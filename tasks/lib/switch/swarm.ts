// Where one machine is outgrown: the same services on a Docker swarm. The resolved compose model goes to
// `docker stack deploy`; the swarm replaces containers, watches their health and takes a failed update back by itself.
import { z } from 'zod';
import { type ActiveEnvironment, environmentsOf } from '../active.ts';
import { probe, run } from '../command.ts';
import { resolvedModel } from '../docker/compose.ts';
import { docker, queryEngine } from '../docker/engine.ts';
import { waitForHealth } from '../docker/health.ts';
import { withReach } from '../docker/remote.ts';
import { TaskError } from '../errors.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project, registryReference } from '../project.ts';
import { session, waitUntil } from '../session.ts';
import type { Step } from '../steps.ts';
import { verifySwitch } from './checks.ts';
import { dependenciesOf } from './dependencies.ts';
import { healthAddress, survey } from './observe.ts';
import { planSwitch, type SwitchTarget, switchSchema } from './plan.ts';
import { expectedHealth } from './prove.ts';
import {
  fetchStep,
  type PlannedSwitch,
  plannedSwitch,
  type Runner,
  rememberStep,
  resumeWith,
} from './run.ts';
import { STACK_LABEL, type Stack, stackFile } from './stack.ts';
import { checkTarget, environmentImage } from './target.ts';

/** The swarm may wait a whole minute for a port before it goes on with a rollback. */
const SETTLE_MS = 150_000;

const environment = z.enum(ENVIRONMENTS);
const service = z.object({ image: z.string(), deployed: z.string().nullable(), replicas: z.number() });
const schema = switchSchema
  .pick({ from: true, to: true, fetch: true, images: true, waitSeconds: true })
  .extend({
    /** What the swarm ran before. */
    before: z.object({ dev: service.optional(), prod: service.optional() }),
    deploys: z.array(z.object({ environment, reason: z.string() })),
    stops: z.array(environment),
  });
type SwarmData = z.output<typeof schema>;
type Stacks = Partial<Record<EnvironmentName, Stack>>;

const engineInfo = z.object({
  Swarm: z.object({ ControlAvailable: z.boolean(), NodeID: z.string(), Nodes: z.number().default(1) }),
});

/** This engine's node and how many the swarm has. @throws TaskError where it is no manager of a swarm */
async function swarmNode() {
  const { Swarm } = engineInfo.parse(await queryEngine('/info'));
  if (Swarm.ControlAvailable) return { node: Swarm.NodeID, nodes: Swarm.Nodes };
  throw new TaskError('This engine is not a manager of a swarm', {
    code: 'no-swarm',
    hint: 'make it one: docker swarm init; or leave out --engine swarm',
  });
}

function nameOf({ project, environments }: Project, name: EnvironmentName): string {
  return `${project.name}_${environments[name].service}`;
}

const listedService = z
  .object({
    Spec: z.object({
      Name: z.string(),
      Labels: z.record(z.string(), z.string()).default({}),
      Mode: z.object({ Replicated: z.object({ Replicas: z.number() }) }),
      TaskTemplate: z.object({ ContainerSpec: z.object({ Image: z.string() }) }),
    }),
    ServiceStatus: z.object({ RunningTasks: z.number() }),
  })
  .transform(({ Spec, ServiceStatus }) => ({
    name: Spec.Name,
    image: Spec.TaskTemplate.ContainerSpec.Image,
    deployed: Spec.Labels[STACK_LABEL] ?? null,
    replicas: Spec.Mode.Replicated.Replicas,
    /** Containers, also those that still stop. */
    running: ServiceStatus.RunningTasks,
  }));

/** What the swarm runs of the project. */
async function swarmServices(project: Project) {
  const filters = JSON.stringify({ label: [`com.docker.stack.namespace=${project.project.name}`] });
  const path = `/services?status=true&filters=${encodeURIComponent(filters)}`;
  const listed = z.array(listedService).parse(await queryEngine(path));
  const find = (name: EnvironmentName) => listed.find((one) => one.name === nameOf(project, name));
  return { dev: find('dev'), prod: find('prod') };
}

/** Waits until that many containers run. */
async function scale(project: Project, name: EnvironmentName, replicas: number): Promise<void> {
  await run(docker('service', 'scale', `${nameOf(project, name)}=${replicas}`), { timeoutMs: SETTLE_MS });
  if (replicas > 0 || session.withheld) return;
  // The client does not wait for containers that stop.
  const isGone = async () => ((await swarmServices(project))[name]?.running ? undefined : true);
  if (await waitUntil(isGone, { withinMs: SETTLE_MS })) return;
  throw new TaskError(`${name} still runs ${SETTLE_MS / 1000} s after it was stopped`, {
    code: 'not-stopped',
  });
}

const DEPLOY = [
  ...['stack', 'deploy', '--detach=false', '--resolve-image', 'never', '--with-registry-auth'],
  ...['--compose-file', '-'],
];

/** Deploys, and waits until /health comes from what was deployed. @throws TaskError with the swarm's own reason */
async function deployAndProve(project: Project, name: EnvironmentName, data: SwarmData, stack: Stack) {
  const timeoutSeconds = data.waitSeconds ?? project.environments[name].start_timeout;
  // A failed update comes with the swarm's own rollback, a first deployment does not.
  const timeoutMs = timeoutSeconds * 1000 + (data.before[name] ? SETTLE_MS : 0);
  try {
    await run(docker(...DEPLOY, project.project.name), { input: stack.text, timeoutMs });
    const expected = expectedHealth(name, data.images[name]);
    const wait = { keys: project.health, expected, timeoutSeconds, givenUp: async () => undefined };
    await withReach(async (reach) =>
      waitForHealth({ ...(await healthAddress(project, name, reach)), ...wait }),
    );
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    const ps = docker('service', 'ps', '--no-trunc', '--format', '{{.Error}}', nameOf(project, name));
    const why = (await probe(ps)).stdout.split('\n').find(Boolean);
    const message = `Cannot start ${name}: ${error.message}${why ? `\nThe container that failed last: ${why}` : ''}`;
    const hint = 'Rolled back to what the swarm ran before; .env is unchanged';
    throw new TaskError(message, { code: 'unhealthy', hint, cause: error });
  }
}

async function rollBack(project: Project, name: EnvironmentName, { before }: SwarmData): Promise<void> {
  const [was, now] = [before[name], (await swarmServices(project))[name]];
  if (!now) return;
  if (!was) return void (await run(docker('service', 'rm', nameOf(project, name))));
  // Where the deployment failed before it changed the service, a rollback would go one version further back.
  if (now.deployed !== was.deployed)
    await run(docker('service', 'rollback', nameOf(project, name)), { timeoutMs: SETTLE_MS });
  await scale(project, name, was.replicas);
}

function swarmSteps(project: Project, planned: SwarmData, stacks: Stacks): Step<SwarmData>[] {
  const { from, to, fetch, deploys, stops } = planned;
  const steps: Step<SwarmData>[] = [
    ...(fetch ? [fetchStep<SwarmData>(project, planned)] : []),
    ...deploys.map(({ environment: name, reason }) => ({
      name: `deploy-${name}`,
      title: `deploy ${name} to the swarm: ${reason}`,
      apply: (data: SwarmData) => deployAndProve(project, name, data, stacks[name]!),
      undo: (data: SwarmData) => rollBack(project, name, data),
    })),
    ...stops.map((name) => ({
      name: `stop-${name}`,
      title: `stop ${name}`,
      apply: () => scale(project, name, 0),
      undo: ({ before }: SwarmData) => scale(project, name, before[name]!.replicas),
    })),
  ];
  const isSame = from.active === to.active && from.prodTag === to.prodTag;
  return steps.length === 0 && isSame ? [] : [...steps, rememberStep(project, planned)];
}

function swarmRunner(project: Project, stacks: Stacks = {}): Runner<SwarmData> {
  const steps = (data: SwarmData) => swarmSteps(project, data, stacks);
  return { journal: 'switch@swarm', flags: ' --engine swarm', schema, steps };
}

/** A switch on a swarm, planned and checked. @throws TaskError with every problem */
export async function swarmSwitch(
  project: Project,
  active: ActiveEnvironment,
  prodTag: string | undefined,
): Promise<PlannedSwitch> {
  const swarm = await swarmNode();
  const [before, snapshot, check, model] = await Promise.all([
    swarmServices(project),
    survey(project, prodTag),
    checkTarget(project, active, prodTag),
    resolvedModel(project, prodTag),
  ]);
  const wanted = environmentsOf(active);
  const serviceOf = (name: EnvironmentName) => project.environments[name].service;
  const stacks: Stacks = {};
  for (const name of wanted) {
    const own = serviceOf(name);
    const needed = dependenciesOf(snapshot.model.services, [own], ENVIRONMENTS.map(serviceOf));
    const images = { [own]: pulledImage(project, name, check.target) };
    const names = [own, ...needed.map(({ service }) => service)];
    stacks[name] = await stackFile(project.project.name, model, names, { ...swarm, images });
  }
  const deploys = wanted.flatMap((name) => {
    const reason = reasonToDeploy(before[name], stacks[name]!);
    return reason ? [{ environment: name, reason }] : [];
  });
  const stops = ENVIRONMENTS.filter((name) => before[name]?.replicas && !wanted.includes(name));
  await verifySwitch(
    project,
    snapshot,
    check,
    deploys.map((one) => ({ ...one, how: 'create' as const })),
  );
  const data: SwarmData = { ...planSwitch(snapshot, check.target), before, deploys, stops };
  const { addresses } = snapshot;
  return plannedSwitch(project, swarmRunner(project, stacks), data, {
    ...{ addresses, observe: () => observeSwarm(project) },
  });
}

export function resumeSwarm(project: Project): Promise<boolean> {
  return resumeWith(project, swarmRunner(project));
}

function reasonToDeploy(now: z.output<typeof service> | undefined, { digest }: Stack): string | undefined {
  if (!now) return 'the swarm has no such service';
  if (now.deployed !== digest) return 'its image or configuration changed';
  return now.replicas === 0 ? 'it is stopped' : undefined;
}

/** What the swarm runs, as lines and as data. */
export async function observeSwarm(project: Project) {
  await swarmNode();
  const services = await swarmServices(project);
  const lines = ENVIRONMENTS.map((name) => {
    const found = services[name];
    return `${name.padEnd(5)} ${found ? `${found.image} × ${found.replicas}` : 'no service'}`;
  });
  const environments = { dev: services.dev ?? null, prod: services.prod ?? null };
  return { text: lines.join('\n'), data: { engine: 'swarm', environments } };
}

/** The name by which every node can pull this very image: its digest in the registry. */
function pulledImage(project: Project, name: EnvironmentName, { images, prodTag }: SwitchTarget) {
  const reference = registryReference(project, environmentImage(project, name, prodTag).split(':').at(-1)!);
  const repository = reference?.slice(0, reference.lastIndexOf(':'));
  return images[name]?.repoDigests.find((digest) => repository && digest.startsWith(`${repository}@`));
}
