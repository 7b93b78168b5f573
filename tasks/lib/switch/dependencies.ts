// What an environment depends on by the compose file (`depends_on`): a database, a job that must have run. Started
// before the environment, its conditions honoured; what is up to date is left alone.

import { run } from '../command.ts';
import { type ComposeModel, type ComposeService, copyFilesInto, modelCommand } from '../docker/compose.ts';
import { type Container, inspectContainers, lastLogLines, projectContainers } from '../docker/objects.ts';
import { TaskError } from '../errors.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project } from '../project.ts';
import { uninterrupted, waitUntil } from '../session.ts';
import { type EngineSnapshot, isOneOff, isUpToDate } from './observe.ts';
import type { Dependency } from './plan.ts';
import { removeContainer, startContainer, stopContainer } from './replace.ts';

/** Every service that the environments need, directly or not, in the order in which they can start. Pure. */
export function dependenciesOf(
  services: Record<string, ComposeService>,
  environments: readonly string[],
  excluded: readonly string[],
): Omit<Dependency, 'up'>[] {
  const found = new Map<string, { neededBy: Set<string>; conditions: Set<string> }>();
  const order: string[] = [];
  const visit = (dependent: string) => {
    for (const [service, condition] of Object.entries(services[dependent]?.dependsOn ?? {})) {
      if (excluded.includes(service) || !services[service]) continue;
      const entry = found.get(service) ?? { neededBy: new Set(), conditions: new Set() };
      const isNew = !found.has(service);
      found.set(service, entry);
      entry.neededBy.add(dependent);
      entry.conditions.add(condition);
      if (!isNew) continue;
      visit(service);
      order.push(service);
    }
  };
  for (const environment of environments) visit(environment);
  return order.map((service) => {
    const { neededBy, conditions } = found.get(service)!;
    return { service, neededBy: [...neededBy].join(' and '), conditions: [...conditions] };
  });
}

/** The dependencies of `wanted` that are not as they should be. */
export function missingDependencies(
  project: Project,
  { model, containers, byHand }: Pick<EngineSnapshot, 'model' | 'containers' | 'byHand'>,
  wanted: readonly EnvironmentName[],
): Dependency[] {
  const serviceOf = (name: EnvironmentName) => project.environments[name].service;
  const needed = dependenciesOf(model.services, wanted.map(serviceOf), ENVIRONMENTS.map(serviceOf));
  return needed.flatMap((dependency): Dependency[] => {
    const own = containers.filter((one) => one.service === dependency.service && !isOneOff(one));
    const isCurrent = (one: Container) =>
      isUpToDate(one, model.digests[dependency.service], byHand[dependency.service]);
    const isFine = own.some(
      (one) => isCurrent(one) && dependency.conditions.every((c) => meets(one, c) === true),
    );
    if (isFine) return [];
    return [{ ...dependency, up: own.filter(({ state }) => state === 'running').map(({ id }) => id) }];
  });
}

/** Does a container meet one of compose's conditions? A text says why it never will. Pure. */
export function meets({ state, health, exitCode }: Container, condition: string): boolean | string {
  const ended = state === 'exited' || state === 'dead';
  if (condition === 'service_completed_successfully') {
    if (ended && exitCode !== 0) return `it exited with code ${exitCode}`;
    return ended;
  }
  if (ended && (condition === 'service_healthy' || exitCode !== 0)) return `it exited with code ${exitCode}`;
  if (condition === 'service_healthy') {
    if (health === 'unhealthy') return 'it is unhealthy';
    return health === undefined && state === 'running' ? 'it has no health check' : health === 'healthy';
  }
  return state === 'running' || ended;
}

const LIMIT_SECONDS = 120;

/** Makes it if it must be made, starts it, waits for its conditions. @throws TaskError with its last log lines */
export async function startDependency(
  project: Project,
  model: ComposeModel,
  { service, neededBy, conditions }: Dependency,
): Promise<void> {
  const up = ['up', '--no-start', '--no-deps', '--no-build', service];
  const known = (await containersOf(project, service)).map(({ id }) => id);
  await uninterrupted(() => run(modelCommand(project, ...up), { input: model.input }));
  const own = await containersOf(project, service);
  const [container] = own;
  if (!container)
    throw new TaskError(`docker compose created no container of ${service}`, { code: 'dependency' });
  if (!known.includes(container.id)) await copyFilesInto(container.id, model.files[service] ?? []);
  await startContainer(container.id);
  const verdict = await waitUntil(
    async () => {
      const [now] = await inspectContainers([container.id]);
      const verdicts = conditions.map((one) => (now ? meets(now, one) : 'its container is gone'));
      if (verdicts.every((one) => one === true)) return 'met';
      return verdicts.find((one) => typeof one === 'string');
    },
    { withinMs: LIMIT_SECONDS * 1000 },
  );
  if (verdict === 'met') return;
  const why = verdict ?? `not ${conditions.join(', ')} after ${LIMIT_SECONDS} s`;
  const logs = await lastLogLines(container.id, 5);
  throw new TaskError(`Cannot start ${service}, which ${neededBy} depends on: ${why}\n${logs}`.trimEnd(), {
    code: 'dependency',
    hint: `see: docker logs ${container.name}`,
  });
}

async function containersOf(project: Project, service: string): Promise<Container[]> {
  return (await projectContainers(project)).filter((one) => one.service === service && !isOneOff(one));
}

/** Removes what was created, stops what did not run before. One that compose had to replace stays. */
export async function undoDependency(
  project: Project,
  { service, up }: Dependency,
  containersBefore: readonly string[],
): Promise<void> {
  for (const { id, state } of await containersOf(project, service)) {
    if (!containersBefore.includes(id) && up.length === 0) await removeContainer(id);
    else if (!up.includes(id) && up.length === 0 && state === 'running') await stopContainer(id);
  }
}
