// Where one machine is outgrown: the same services on a Docker swarm. The swarm itself replaces containers and
// takes a failed update back; here is what it is told, and what is made sure of afterwards.
import { probe, run } from '../command.ts';
import { docker } from '../docker/client.ts';
import { askEngine } from '../docker/engine-api.ts';
import { TaskError } from '../errors.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project } from '../project.ts';
import { STACK_LABEL, type Stack, type StackObject } from './stack.ts';

export interface SwarmService {
  name: EnvironmentName;
  image: string;
  replicas: number;
  /** The digest that it was deployed from. */
  deployed: string | undefined;
  /** `updating`, `completed`, `rollback_completed`, …; undefined before the first update. */
  update: string | undefined;
  updateMessage: string | undefined;
}

export function swarmServiceName(project: Project, name: EnvironmentName): string {
  return `${project.project.name}_${project.environments[name].service}`;
}

/** Asks a manager of a swarm: the parsed answer, or undefined for 404. @throws TaskError where there is none */
export async function askSwarm(path: string): Promise<unknown> {
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
export async function swarmPublish(): Promise<'host' | 'ingress'> {
  const { z } = await import('#zod');
  const nodes = z.array(z.unknown()).parse(await askSwarm('/nodes'));
  return nodes.length > 1 ? 'ingress' : 'host';
}

export async function inspectService(
  project: Project,
  name: EnvironmentName,
): Promise<SwarmService | undefined> {
  const answer = await askSwarm(`/services/${encodeURIComponent(swarmServiceName(project, name))}`);
  if (answer === undefined) return undefined;
  const { z } = await import('#zod');
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

export async function inspectServices(project: Project) {
  const [dev, prod] = await Promise.all(ENVIRONMENTS.map((name) => inspectService(project, name)));
  return { dev, prod } as Record<EnvironmentName, SwarmService | undefined>;
}

async function createObject({ kind, name, content }: StackObject): Promise<void> {
  if ((await probe(docker(kind, 'inspect', name))).ok) return;
  await run(docker(kind, 'create', name, '-'), { input: content });
}

/** Hands the stack to the swarm; returns at once. Images are those of the node: nobody is asked for them. */
export async function deployStack(project: Project, { text, objects }: Stack): Promise<void> {
  for (const object of objects) await createObject(object);
  const flags = ['--detach=true', '--resolve-image', 'never', '--compose-file', '-'];
  await run(docker('stack', 'deploy', ...flags, project.project.name), { input: text });
}
