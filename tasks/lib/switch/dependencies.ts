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
  { environments }: Pick<Project, 'environments'>,
  services: Record<string, ComposeService>,
  wanted: readonly EnvironmentName[],
): Omit<Dependency, 'up'>[] {
  const own = ENVIRONMENTS.map((name) => environments[name].service);
  const found = new Map<string, { neededBy: Set<string>; conditions: Set<string> }>();
  const visit = (dependent: string) => {
    for (const [service, condition] of Object.entries(services[dependent]?.dependsOn ?? {})) {
      if (own.includes(service) || !services[service]) continue;
      if (!found.has(service)) visit(service);
      const entry = found.get(service) ?? { neededBy: new Set(), conditions: new Set() };
      entry.neededBy.add(dependent);
      entry.conditions.add(condition);
      found.set(service, entry);
    }
  };
  for (const name of wanted) visit(environments[name].service);
  return [...found].map(([service, { neededBy, conditions }]) => ({
    ...{ service, neededBy: [...neededBy].join(' and '), conditions: [...conditions] },
  }));
}

/** The dependencies of `wanted` that are not as they should be. */
export function missingDependencies(
  project: Project,
  { model, containers, byHand }: Pick<EngineSnapshot, 'model' | 'containers' | 'byHand'>,
  wanted: readonly EnvironmentName[],
): Dependency[] {
  return dependenciesOf(project, model.services, wanted).flatMap((dependency): Dependency[] => {
    const { service, conditions } = dependency;
    const own = ofService(containers, service);
    const isFine = (one: Container) =>
      isUpToDate(one, model.digests[service], byHand[service]) &&
      conditions.every((condition) => meets(one, condition) === true);
    const up = own.some(({ state }) => state === 'running');
    return own.some(isFine) ? [] : [{ ...dependency, up }];
  });
}

/** Does a container meet one of compose's conditions? A text says why it never will. Pure. */
export function meets({ state, health, exitCode }: Container, condition: string): boolean | string {
  const ended = state === 'exited' || state === 'dead';
  if (ended && (exitCode !== 0 || condition === 'service_healthy')) return `it exited with code ${exitCode}`;
  if (condition === 'service_completed_successfully') return ended;
  if (condition !== 'service_healthy') return state === 'running' || ended;
  if (health === 'unhealthy') return 'it is unhealthy';
  return health === undefined && state === 'running' ? 'it has no health check' : health === 'healthy';
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
  const [container] = await containersOf(project, service);
  if (!container)
    throw new TaskError(`docker compose created no container of ${service}`, { code: 'dependency' });
  if (!known.includes(container.id)) await copyFilesInto(container.id, model.files[service] ?? []);
  await startContainer(container.id);
  const verdict = await waitUntil(
    async () => {
      const [now] = await inspectContainers([container.id]);
      const verdicts = conditions.map((one) => (now ? meets(now, one) : 'its container is gone'));
      return verdicts.every((one) => one === true) || verdicts.find((one) => typeof one === 'string');
    },
    { withinMs: LIMIT_SECONDS * 1000 },
  );
  if (verdict === true) return;
  const why = verdict ?? `not ${conditions.join(', ')} after ${LIMIT_SECONDS} s`;
  const logs = await lastLogLines(container.id, 5);
  throw new TaskError(`Cannot start ${service}, which ${neededBy} depends on: ${why}\n${logs}`.trimEnd(), {
    code: 'dependency',
    hint: `see: docker logs ${container.name}`,
  });
}

function ofService(containers: readonly Container[], service: string): Container[] {
  return containers.filter((one) => one.service === service && !isOneOff(one));
}

async function containersOf(project: Project, service: string): Promise<Container[]> {
  return ofService(await projectContainers(project), service);
}

/** What did not run before is stopped, or removed if it was not there; one that ran and had to be replaced stays. */
export async function undoDependency(
  project: Project,
  { service, up }: Dependency,
  containersBefore: readonly string[],
): Promise<void> {
  if (up) return;
  for (const { id, state } of await containersOf(project, service)) {
    if (!containersBefore.includes(id)) await removeContainer(id);
    else if (state === 'running') await stopContainer(id);
  }
}
