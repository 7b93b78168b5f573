// One environment as a status page tells it: pure, from what was looked up, so that every situation can be tested
// without producing it.
import type { Container } from '../docker/containers.ts';
import { type EnvironmentName, imageReference, type Project, portOf } from '../project.ts';
import { releasedDigests } from '../release/record.ts';
import type { ReleaseTag } from '../release/release-tags.ts';
import {
  activeEnvironment,
  type EnvironmentState,
  isHealthy,
  type Observation,
} from '../switch/environments.ts';
import type { StatusFacts } from './facts.ts';
import { environmentProblems } from './problems.ts';
import type { EnvironmentReport, Mood } from './reported.ts';

/** So many restarts, the last one so recently: it does not stay up. */
const LOOP = { restarts: 3, seconds: 60 };

export function moodOf(state: EnvironmentState, at: Date): Mood {
  const { container } = state;
  if (!container) return 'absent';
  const age = (at.getTime() - Date.parse(container.startedAt)) / 1000;
  const loops = container.restarts >= LOOP.restarts && age < LOOP.seconds;
  if (container.state === 'restarting' || (container.state === 'running' && loops)) return 'crash-looping';
  if (container.state !== 'running') return 'stopped';
  if (isHealthy(state)) return 'healthy';
  return container.health === 'starting' ? 'starting' : 'unhealthy';
}

function text(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}

/** The release that an image is, preferring the one that its name says. */
function releaseOf(releases: readonly ReleaseTag[], digest: string, tag: string): ReleaseTag | undefined {
  const matching = releases.filter(({ record }) => record && releasedDigests(record).includes(digest));
  return matching.find(({ name }) => name === tag) ?? matching.at(-1);
}

/** What the container itself tells. */
function containerPart(facts: StatusFacts, name: EnvironmentName, container: Container) {
  const { image, imageId, state, startedAt, restarts, memoryLimit } = container;
  const usage = facts.usages[name];
  const age = Math.max(0, Math.round((facts.at.getTime() - Date.parse(startedAt)) / 1000));
  const limit = usage && memoryLimit ? usage.limit : null;
  return {
    state,
    image,
    digest: imageId,
    releasedAs: releaseOf(facts.releases, imageId, tagOf(image))?.name ?? null,
    uptimeSeconds: state === 'running' ? age : null,
    restarts,
    memory: usage ? { bytes: usage.memory, limit, peak: usage.peak ?? null } : null,
    cpuPercent: facts.cpu[name] ?? null,
  };
}

/** What its answer to /health tells. */
function healthPart(project: Project, body: Record<string, unknown>) {
  const revision = text(body[project.health.revision ?? '']);
  return {
    version: text(body[project.health.version ?? '']),
    revision,
    dirty: revision?.endsWith('-dirty') ?? false,
    config: configInForce(project, body),
  };
}

export function reportEnvironment(
  project: Project,
  facts: StatusFacts,
  name: EnvironmentName,
): EnvironmentReport {
  const { observation } = facts;
  if (!observation) return unknownEnvironment(project, name);
  const state = observation.environments[name];
  const { container, containerName, url, port, outdated } = state;
  const report: EnvironmentReport = {
    ...unknownEnvironment(project, name),
    ...(container ? containerPart(facts, name, container) : {}),
    ...healthPart(project, state.health?.body ?? {}),
    active: isActive(observation, name),
    mood: moodOf(state, facts.at),
    container: containerName,
    url,
    port,
    outdated,
  };
  const { prodTag } = observation;
  const wanted = name === 'prod' && prodTag ? imageReference(project, prodTag) : undefined;
  return { ...report, problems: environmentProblems(report, state, wanted) };
}

export function isActive({ active }: Pick<Observation, 'active'>, name: EnvironmentName): boolean {
  return active === 'both' || active === name;
}

function tagOf(reference: string): string {
  return reference.slice(reference.lastIndexOf(':') + 1);
}

function configInForce(project: Project, body: Record<string, unknown>): Record<string, unknown> {
  const told = Object.entries(project.health.config).filter(([key]) => body[key] !== undefined);
  return Object.fromEntries(told.map(([key, path]) => [path, body[key]]));
}

/** What is known of an environment without an engine. */
function unknownEnvironment(project: Project, name: EnvironmentName): EnvironmentReport {
  return {
    name,
    active: isActive({ active: activeEnvironment(project) }, name),
    mood: 'unknown',
    state: null,
    container: null,
    url: `http://127.0.0.1:${portOf(project, name)}`,
    port: portOf(project, name),
    version: null,
    image: null,
    digest: null,
    releasedAs: null,
    revision: null,
    dirty: false,
    config: {},
    outdated: false,
    uptimeSeconds: null,
    restarts: null,
    memory: null,
    cpuPercent: null,
    problems: [],
  };
}
