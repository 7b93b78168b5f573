// The containers of a service in a swarm, which calls them tasks: what they are, and how many there shall be.
import { read, run } from '../command.ts';
import { docker } from '../docker/client.ts';
import { TaskError } from '../errors.ts';
import { pause } from '../interrupt.ts';
import type { EnvironmentName, Project } from '../project.ts';
import { session } from '../session.ts';
import { swarmServiceName } from './swarm.ts';

export interface SwarmContainer {
  id: string;
  /** What the swarm wants it to be: `Running`, `Ready` (to be started next), `Shutdown`. */
  desired: string;
  /** What it is, e.g. `Running 3 seconds ago`. */
  state: string;
  error: string;
}

/** All that the swarm still knows of, the newest first; it forgets old ones. */
export async function swarmContainers(project: Project, name: EnvironmentName): Promise<SwarmContainer[]> {
  const format = '{{.ID}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}';
  const service = swarmServiceName(project, name);
  const text = await read(docker('service', 'ps', '--no-trunc', '--format', format, service));
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const [id = '', desired = '', state = '', error = ''] = line.split('\t');
      return { id, desired, state, error };
    });
}

export const isRunning = ({ state }: SwarmContainer) => state.startsWith('Running');

export const hasFailed = ({ desired, state }: SwarmContainer) =>
  desired === 'Shutdown' && /^(Failed|Rejected)/.test(state);

/** It found no place before it was no longer wanted. */
export const neverBegan = ({ desired, state }: SwarmContainer) =>
  desired === 'Shutdown' && state.startsWith('Pending');

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
