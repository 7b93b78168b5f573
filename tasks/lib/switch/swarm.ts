// Where one machine is outgrown: the same services on a Docker swarm. The swarm itself replaces containers and
// takes a failed update back; here is what it is told, and what is made sure of afterwards.
import { probe, run } from '../command.ts';
import { docker, parseJson } from '../docker/client.ts';
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

/** How this swarm publishes ports: a single node does it itself, several share the mesh. @throws TaskError without one */
export async function swarmPublish(): Promise<'host' | 'ingress'> {
  const answer = await probe(docker('node', 'ls', '--quiet'));
  if (answer.ok) return answer.stdout.trim().split('\n').length > 1 ? 'ingress' : 'host';
  throw new TaskError(`This engine is not a manager of a swarm: ${answer.stderr.trim().split('\n')[0]}`, {
    code: 'no-swarm',
    hint: 'make it one: docker swarm init; or leave --engine swarm away',
  });
}

export async function inspectService(
  project: Project,
  name: EnvironmentName,
): Promise<SwarmService | undefined> {
  const answer = await probe(docker('service', 'inspect', swarmServiceName(project, name)));
  if (!answer.ok) return undefined;
  const { z } = await import('#zod');
  const schema = z.object({
    Spec: z.object({
      Labels: z.record(z.string(), z.string()).default({}),
      Mode: z.object({ Replicated: z.object({ Replicas: z.number() }) }),
      TaskTemplate: z.object({ ContainerSpec: z.object({ Image: z.string() }) }),
    }),
    UpdateStatus: z.object({ State: z.string().optional(), Message: z.string().optional() }).nullish(),
  });
  const [found] = z.array(schema).parse(parseJson(answer.stdout));
  if (!found) return undefined;
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
