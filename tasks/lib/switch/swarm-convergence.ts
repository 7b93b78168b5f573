// Waiting for a swarm: until it runs what it was told, or has taken it back.
import { run } from '../command.ts';
import { docker } from '../docker/client.ts';
import { TaskError } from '../errors.ts';
import { pause } from '../interrupt.ts';
import type { EnvironmentName, Project } from '../project.ts';
import { MONITOR_SECONDS } from './stack.ts';
import { inspectService, type SwarmService, swarmServiceName } from './swarm.ts';
import { hasFailed, isRunning, neverBegan, scaleService, swarmContainers } from './swarm-containers.ts';

const UNDONE = /^(rollback_|paused)/;

export interface Convergence {
  seconds: number;
  /** What failed before, and says nothing about this deployment: ids. */
  failedBefore: ReadonlySet<string>;
  /** Containers run that have to be replaced: only the swarm knows when it is done with that. */
  replaces: boolean;
}

/** Waits until the swarm runs what it was told. @throws TaskError if it gave up, or after `seconds` */
export async function waitForConvergence(
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
export async function failedContainers(project: Project, name: EnvironmentName): Promise<Set<string>> {
  const exists = await inspectService(project, name);
  const containers = exists ? await swarmContainers(project, name) : [];
  return new Set(containers.filter(hasFailed).map(({ id }) => id));
}

const ROLLED_BACK_WITHIN_MS = 60_000;

/**
 * The service as it was `before` the deployment, with as many containers running; one that did not exist goes away.
 * The swarm's own word that it has rolled back is not enough: it may come before a container is started.
 */
export async function rollBackService(
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
