// Where one machine is outgrown: the same services on a Docker swarm. The resolved compose model goes to
// `docker stack deploy`; the swarm replaces containers, watches their health and takes a failed update back by itself.

import { z } from 'zod';
import { type ActiveEnvironment, environmentsOf } from '../active.ts';
import { probe, read, run } from '../command.ts';
import { askEngine, docker } from '../docker/engine.ts';
import { waitForHealth } from '../docker/health.ts';
import { TaskError } from '../errors.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project, registryReference } from '../project.ts';
import { session } from '../session.ts';
import { describeSteps, interruptedRun, type Journey, resumeSteps, runSteps, type Step } from '../steps.ts';
import { verifySwitch } from './checks.ts';
import { survey } from './observe.ts';
import { planSwitch, type SwitchTarget, switchSchema } from './plan.ts';
import { startProbing } from './probe.ts';
import { expectedHealth, withStartFailure } from './prove.ts';
import { commandOf, fetchStep, historyOf, type PlannedSwitch, rememberStep } from './run.ts';
import { STACK_LABEL, type Stack, stackFile } from './stack.ts';
import { checkTarget, environmentImage } from './target.ts';

/** The swarm may wait a whole minute for a port before it goes on with a rollback. */
const SETTLE_MS = 150_000;

const service = z.object({ image: z.string(), deployed: z.string().nullable(), replicas: z.number() });
const schema = switchSchema.extend({ swarm: z.partialRecord(z.enum(ENVIRONMENTS), service) });
type SwarmData = z.output<typeof schema>;
type Stacks = Partial<Record<EnvironmentName, Stack>>;

/** @throws TaskError where this engine is no manager of a swarm */
async function askSwarm(path: string): Promise<unknown> {
  return askEngine(path).catch((error) => {
    if (!(error instanceof TaskError) || !/not a swarm manager/.test(error.message)) throw error;
    throw new TaskError('This engine is not a manager of a swarm', {
      code: 'no-swarm',
      hint: 'make it one: docker swarm init; or leave --engine swarm away',
    });
  });
}

function nameOf({ project, environments }: Project, name: EnvironmentName): string {
  return `${project.name}_${environments[name].service}`;
}

async function inspectService(project: Project, name: EnvironmentName) {
  const answer = await askSwarm(`/services/${encodeURIComponent(nameOf(project, name))}`);
  const image = z.object({ ContainerSpec: z.object({ Image: z.string() }) });
  const labels = z.record(z.string(), z.string()).default({});
  const mode = z.object({ Replicated: z.object({ Replicas: z.number() }) });
  const spec = z.object({ Spec: z.object({ Labels: labels, Mode: mode, TaskTemplate: image }) });
  const found = spec.optional().parse(answer)?.Spec;
  if (!found) return undefined;
  const { ContainerSpec } = found.TaskTemplate;
  const deployed = found.Labels[STACK_LABEL] ?? null;
  return { image: ContainerSpec.Image, deployed, replicas: found.Mode.Replicated.Replicas };
}

/** Waits, as the client does, until that many containers run. */
async function scale(project: Project, name: EnvironmentName, replicas: number): Promise<void> {
  await run(docker('service', 'scale', `${nameOf(project, name)}=${replicas}`), { timeoutMs: SETTLE_MS });
}

async function deploy(project: Project, { text, objects }: Stack, timeoutMs: number) {
  for (const { kind, name: object, content } of objects) {
    if ((await probe(docker(kind, 'inspect', object))).ok) continue;
    await run(docker(kind, 'create', object, '-'), { input: content });
  }
  const flags = ['--detach=false', '--resolve-image', 'never', '--with-registry-auth', '--compose-file', '-'];
  await run(docker('stack', 'deploy', ...flags, project.project.name), { input: text, timeoutMs });
}

/** What went wrong, with what the swarm says of the container that failed last. */
async function withTaskError(
  project: Project,
  name: EnvironmentName,
  work: () => Promise<unknown>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof TaskError) || error.code === 'interrupted') throw error;
    const ps = docker('service', 'ps', '--no-trunc', '--format', '{{.Error}}', nameOf(project, name));
    const why = (await probe(ps)).stdout.split('\n').find(Boolean);
    const message = `${error.message}${why ? `\nThe container that failed last: ${why}` : ''}`;
    throw new TaskError(message, { code: 'unhealthy', cause: error });
  }
}

function deployStep(project: Project, name: EnvironmentName, reason: string, stack?: Stack): Step<SwarmData> {
  return {
    name: `deploy-${name}`,
    title: `deploy ${name} to the swarm: ${reason}`,
    apply: ({ images, waitSeconds, to, swarm }) =>
      withStartFailure(name, null, async () => {
        const timeoutSeconds = waitSeconds ?? project.environments[name].start_timeout;
        // A failed update comes with the swarm's own way back, a first deployment does not.
        const timeoutMs = timeoutSeconds * 1000 + (swarm[name] ? SETTLE_MS : 0);
        await withTaskError(project, name, async () => {
          await deploy(project, stack!, timeoutMs);
          const { addresses } = await survey(project, to.prodTag ?? undefined);
          const expected = expectedHealth(name, images[name]);
          const wait = { keys: project.health, expected, timeoutSeconds, givenUp: async () => undefined };
          await waitForHealth({ ...addresses[name], ...wait });
        });
      }),
    undo: async ({ swarm }) => {
      const [was, now] = [swarm[name], await inspectService(project, name)];
      if (!now) return;
      if (!was) return run(docker('service', 'rm', nameOf(project, name)));
      // Where the deployment failed before it changed the service, a rollback would go one version further back.
      if (now.deployed !== was.deployed)
        await run(docker('service', 'rollback', nameOf(project, name)), { timeoutMs: SETTLE_MS });
      await scale(project, name, was.replicas);
    },
  };
}

function swarmSteps(project: Project, data: SwarmData, stacks: Stacks): Step<SwarmData>[] {
  const steps = [
    ...(data.fetch ? [fetchStep<SwarmData>(project, data)] : []),
    ...data.starts.map(({ environment: name, reason }) => deployStep(project, name, reason, stacks[name])),
    ...data.stops.map(
      ({ environment: name }): Step<SwarmData> => ({
        name: `stop-${name}`,
        title: `stop ${name}`,
        apply: () => scale(project, name, 0),
        undo: ({ swarm }) => scale(project, name, swarm[name]!.replicas),
      }),
    ),
  ];
  const isSame = data.from.active === data.to.active && data.from.prodTag === data.to.prodTag;
  return steps.length === 0 && isSame ? [] : [...steps, rememberStep(project, data)];
}

function swarmJourney(
  project: Project,
  planned: SwarmData,
  stacks: Stacks,
  gaps = () => ({}),
): Journey<SwarmData> {
  return {
    root: project.root,
    task: swarmJournal(),
    command: `${commandOf(planned)} --engine swarm`,
    schema,
    steps: (data) => swarmSteps(project, data, stacks),
    history: (data) => historyOf(data, gaps()),
  };
}

/** Its own journal beside that of a switch by compose. */
function swarmJournal(): string {
  return `switch@swarm${session.context ? `@${session.context}` : ''}`;
}

/** A switch on a swarm, planned and checked. @throws TaskError with every problem */
export async function swarmSwitch(
  project: Project,
  active: ActiveEnvironment,
  prodTag: string | undefined,
): Promise<PlannedSwitch> {
  const nodes = z.array(z.unknown()).parse(await askSwarm('/nodes')).length;
  const node = await read(docker('info', '--format', '{{.Swarm.NodeID}}'));
  const [snapshot, check, services] = await Promise.all([
    survey(project, prodTag),
    checkTarget(project, active, prodTag),
    inspectServices(project),
  ]);
  const wanted = environmentsOf(active);
  const stacks: Stacks = {};
  for (const name of wanted) {
    const images = { [project.environments[name].service]: pulledImage(project, name, check.target) };
    stacks[name] = stackFile(project, snapshot.model, name, { nodes, node, images });
  }
  const planned = planSwitch(snapshot, check.target);
  const running = ENVIRONMENTS.filter((name) => (services[name]?.replicas ?? 0) > 0);
  const data: SwarmData = {
    ...planned,
    swarm: services,
    starts: wanted.flatMap((environment) => {
      const reason = reasonToDeploy(services[environment], stacks[environment]!);
      const { containerName } = snapshot.observed.environments[environment];
      const rest = { how: 'create' as const, containerName, restartPolicy: 'no', old: null, next: null };
      return reason ? [{ environment, reason, ...rest }] : [];
    }),
    stops: running
      .filter((name) => !wanted.includes(name))
      .map((environment) => ({
        environment,
        old: { id: '', name: '', up: true, answered: true, restartPolicy: '' },
      })),
  };
  await verifySwitch(project, snapshot, check, data.starts);
  return {
    steps: describeSteps(swarmSteps(project, data, stacks)),
    run: async (waitSeconds) => {
      const probing = startProbing(snapshot.addresses);
      const journey = swarmJourney(project, data, stacks, probing.gaps);
      const { phases } = await runSteps(journey, { ...data, waitSeconds: waitSeconds ?? null }).finally(
        probing.stop,
      );
      return { phases, gaps: probing.gaps() };
    },
    observe: () => observeSwarm(project),
  };
}

/** Undoes, or finishes, an interrupted switch on the swarm. Call it holding the lock. */
export async function resumeSwarm(project: Project): Promise<void> {
  const journal = await interruptedRun({ root: project.root, task: swarmJournal(), schema });
  if (journal) await resumeSteps(swarmJourney(project, journal.data, {}));
}

function reasonToDeploy(
  present: z.output<typeof service> | undefined,
  { digest }: Stack,
): string | undefined {
  if (!present) return 'the swarm has no such service';
  if (present.deployed !== digest) return 'its image or configuration is another one';
  return present.replicas === 0 ? 'it is stopped' : undefined;
}

async function inspectServices(project: Project): Promise<SwarmData['swarm']> {
  const found = await Promise.all(ENVIRONMENTS.map((name) => inspectService(project, name)));
  return Object.fromEntries(
    ENVIRONMENTS.flatMap((name, index) => (found[index] ? [[name, found[index]]] : [])),
  );
}

/** What the swarm runs, as lines and as data. */
export async function observeSwarm(
  project: Project,
): Promise<{ text: string; data: Record<string, unknown> }> {
  const services = await inspectServices(project);
  const lines = ENVIRONMENTS.map((name) => {
    const found = services[name];
    return `${name.padEnd(5)} ${found ? `${found.image} × ${found.replicas}` : 'not there'}`;
  });
  const environments = Object.fromEntries(ENVIRONMENTS.map((name) => [name, services[name] ?? null]));
  return { text: lines.join('\n'), data: { engine: 'swarm', environments } };
}

/** The name by which every node can pull this very image: its digest in the registry. */
function pulledImage(project: Project, name: EnvironmentName, { images, prodTag }: SwitchTarget) {
  const reference = registryReference(project, environmentImage(project, name, prodTag).split(':').at(-1)!);
  const repository = reference?.slice(0, reference.lastIndexOf(':'));
  return images[name]?.repoDigests.find((digest) => repository && digest.startsWith(`${repository}@`));
}
