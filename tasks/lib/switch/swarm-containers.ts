// The containers of a service in a swarm, which calls them tasks: what they are, and how many there shall be.
import { run } from '../command.ts';
import { docker } from '../docker/client.ts';
import { TaskError } from '../errors.ts';
import { pause } from '../interrupt.ts';
import type { EnvironmentName, Project } from '../project.ts';
import { session } from '../session.ts';
import { askSwarm, swarmServiceName } from './swarm.ts';

export interface SwarmContainer {
  id: string;
  /** What the swarm wants it to be: `running`, `ready` (to be started next), `shutdown`. */
  desired: string;
  /** What it is: `running`, `failed`, `rejected`, `pending`, … */
  state: string;
  error: string;
}

/** All that the swarm still knows of, the newest first; it forgets old ones. */
export async function swarmContainers(project: Project, name: EnvironmentName): Promise<SwarmContainer[]> {
  const { z } = await import('#zod');
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

export const isRunning = ({ state }: SwarmContainer) => state === 'running';

export const hasFailed = ({ desired, state }: SwarmContainer) =>
  desired === 'shutdown' && ['failed', 'rejected'].includes(state);

/** It found no place before it was no longer wanted. */
export const neverBegan = ({ desired, state }: SwarmContainer) =>
  desired === 'shutdown' && state === 'pending';

const SCALED_WITHIN_MS = 30_000;

/** Changes how many containers a service has, and waits until that many run. */
export async function scaleService(project: Project, name: EnvironmentName, replicas: number): Promise<void> {
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
