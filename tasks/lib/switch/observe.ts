// What runs, seen as the two environments: the observation that plans and status pages are made from.

import { type ActiveEnvironment, activeEnvironment, environmentsOf } from '../active.ts';
import {
  CONFIG_HASH_LABEL,
  type ComposeModel,
  type ComposeService,
  composeHashes,
  composeModel,
  DIGEST_LABEL,
  environmentOfService,
  verifyServices,
} from '../docker/compose.ts';
import { isLocalEndpoint, queryEngine } from '../docker/engine.ts';
import { type HealthAnswer, queryHealth } from '../docker/health.ts';
import { type Container, projectContainers } from '../docker/objects.ts';
import { type Reach, withReach } from '../docker/remote.ts';
import { loadDotenv } from '../dotenv.ts';
import type { HttpAddress } from '../http.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project, portOf, variable } from '../project.ts';

export interface EnvironmentState {
  /** Name that its container has, or would have. */
  containerName: string;
  /** As a person would open it. */
  url: string;
  container: Container | undefined;
  /** Asked only of a running container. */
  health: HealthAnswer | undefined;
  /** The compose configuration, or a file that goes into the container, changed since it was made. */
  outdated: boolean;
  /** Why its stopped container cannot be started again: what it needs is gone. */
  cannotStart?: string | undefined;
}

export interface Observation {
  active: ActiveEnvironment;
  /** What .env names as prod's release. */
  prodTag: string | undefined;
  environments: Record<EnvironmentName, EnvironmentState>;
}

/** The engine at one moment: what a switch needs to know beyond what a status page shows. */
export interface EngineSnapshot {
  observed: Observation;
  model: ComposeModel;
  services: Record<EnvironmentName, ComposeService>;
  /** Where to ask each environment for its health. */
  addresses: Record<EnvironmentName, HttpAddress>;
  /** Every container of the compose project. */
  containers: Container[];
  /** Service → the hash that compose itself would give its container; asked only where a container has no digest. */
  byHand: Record<string, string>;
  endpoint: string;
}

/** The container that stands for a service: one that runs, if possible under its name; else the one with the name. */
function containerOf(containers: readonly Container[], service: string, name: string): Container | undefined {
  const own = containers.filter((one) => one.service === service && !isOneOff(one));
  const rank = (one: Container) => (one.state === 'running' ? 2 : 0) + (one.name === name ? 1 : 0);
  return own.sort((a, b) => rank(b) - rank(a))[0];
}

/** Made by `docker compose run`. */
export function isOneOff({ labels }: Container): boolean {
  return labels['com.docker.compose.oneoff'] === 'True';
}

/** Where to ask an environment for its health. */
async function healthAddress(project: Project, name: EnvironmentName, reach: Reach): Promise<HttpAddress> {
  const address = await reach(portOf(project, name));
  return { ...address, url: address.url + project.environments[name].health };
}

/** The same for one question, or a few. */
export function withHealthAddress<T>(
  project: Project,
  name: EnvironmentName,
  work: (address: HttpAddress) => Promise<T>,
): Promise<T> {
  return withReach(async (reach) => work(await healthAddress(project, name, reach)));
}

type Seen = Pick<EngineSnapshot, 'model' | 'containers' | 'addresses' | 'endpoint' | 'byHand'>;

/** Both environments as their containers and /health show them. */
async function lookAtBoth(
  project: Project,
  { model, containers, addresses, endpoint, byHand }: Seen,
): Promise<Observation> {
  // As a person types it into a browser.
  const host = isLocalEndpoint(endpoint) ? '127.0.0.1' : new URL(endpoint).hostname;
  const look = async (name: EnvironmentName): Promise<EnvironmentState> => {
    const { service } = project.environments[name];
    const containerName = model.services[service]!.container;
    const container = containerOf(containers, service, containerName);
    const health = container?.state === 'running' ? await queryHealth(addresses[name]) : undefined;
    const outdated =
      container !== undefined && !isUpToDate(container, model.digests[service], byHand[service]);
    const url = `http://${host}:${portOf(project, name)}`;
    const cannotStart = container?.state === 'exited' ? await missingNeed(container) : undefined;
    return { containerName, url, container, health, outdated, cannotStart };
  };
  const [dev, prod] = await Promise.all([look('dev'), look('prod')]);
  const active = activeEnvironment(project);
  return { active, prodTag: variable(project, 'PROD_TAG'), environments: { dev, prod } };
}

/** What a stopped container needs and does not find any more, e.g. after `docker network prune`. */
export async function missingNeed({ networkIds }: Container): Promise<string | undefined> {
  const found = await Promise.all(networkIds.map((id) => queryEngine(`/networks/${id}`)));
  return found.includes(undefined) ? 'a network of its container is gone' : undefined;
}

/** Made from the present configuration: by a task, or by compose itself when somebody ran it by hand. */
export function isUpToDate({ labels }: Container, digest: string | undefined, hash: string | undefined) {
  const own = labels[DIGEST_LABEL];
  return own === undefined ? hash !== undefined && labels[CONFIG_HASH_LABEL] === hash : own === digest;
}

/**
 * Looks at engine, compose files, .env and both /health, and at compose's view of `prodTag` as prod's release.
 * `containersOf` finds the project's containers.
 * @throws TaskError when one of them cannot be read
 */
export function survey(
  project: Project,
  prodTag: string | undefined,
  containersOf: (project: Project) => Promise<Container[]> = projectContainers,
): Promise<EngineSnapshot> {
  return withReach(async (reach, endpoint) => {
    const [model, containers, devAddress, prodAddress] = await Promise.all([
      composeModel(project, prodTag),
      containersOf(project),
      healthAddress(project, 'dev', reach),
      healthAddress(project, 'prod', reach),
    ]);
    verifyServices(project, model.services);
    const isByHand = containers.some(({ labels }) => labels[DIGEST_LABEL] === undefined);
    const byHand = isByHand ? await composeHashes(project, prodTag) : {};
    const seen = { model, containers, byHand, endpoint, addresses: { dev: devAddress, prod: prodAddress } };
    return {
      ...seen,
      observed: await lookAtBoth(project, seen),
      services: {
        dev: model.services[project.environments.dev.service]!,
        prod: model.services[project.environments.prod.service]!,
      },
    };
  });
}

/** What runs now, without asking compose again. */
export async function observeAgain(project: Project, snapshot: EngineSnapshot): Promise<Observation> {
  const now = { ...project, dotenv: await loadDotenv(project.root) };
  return lookAtBoth(now, { ...snapshot, containers: await projectContainers(project) });
}

/** What runs now. @throws TaskError when engine, compose files or .env cannot be read */
export async function observe(project: Project, containersOf = projectContainers): Promise<Observation> {
  return (await survey(project, variable(project, 'PROD_TAG'), containersOf)).observed;
}

/** Why an environment is not up and healthy; undefined: it is. */
export function unhealthyReason({
  container,
  health,
}: Pick<EnvironmentState, 'container' | 'health'>): string | undefined {
  if (!container) return 'it has no container';
  if (container.state !== 'running') return `its container is ${container.state}`;
  if (!health || health.status === 0) return `no response (${health?.error ?? 'not asked'})`;
  if (health.status !== 200) return `it answers ${health.status}, expected 200`;
  return container.health === 'unhealthy' ? 'its container is unhealthy' : undefined;
}

export function isHealthy(state: EnvironmentState): boolean {
  return unhealthyReason(state) === undefined;
}

/** The containers of one environment, one-off ones included. */
export function containersOfEnvironment(
  project: Project,
  containers: readonly Container[],
  name: EnvironmentName,
): Container[] {
  return containers.filter((one) => environmentOfService(project, one.service) === name);
}

// An observation in words, and as the data of `--json`.

/** How one environment is: `healthy  synapse:v1.0.0 (1.0.0)`. */
export function describeEnvironment(project: Project, state: EnvironmentState): string {
  const { container, health } = state;
  if (container?.state !== 'running') return container?.state ?? 'no container';
  const version = health?.body[project.health.version ?? ''];
  const why = unhealthyReason(state);
  const verdict = why ? `unhealthy: ${why}` : 'healthy';
  return `${verdict}  ${container.image}${version ? ` (${version})` : ''}`;
}

/** One line per environment; `*` marks the active ones. */
export function describeObservation(project: Project, observed: Observation): string {
  return ENVIRONMENTS.map((name) => {
    const state = observed.environments[name];
    const url = state.container?.state === 'running' ? `  ${state.url}` : '';
    const mark = environmentsOf(observed.active).includes(name) ? '*' : ' ';
    return `${mark} ${name.padEnd(5)} ${describeEnvironment(project, state)}${url}`;
  }).join('\n');
}

/** The same for `--json`. */
export function observationData(project: Project, observed: Observation): Record<string, unknown> {
  const { version = '', revision = '' } = project.health;
  const describe = ({ container, health, url }: EnvironmentState) => ({
    state: container?.state ?? null,
    healthy: unhealthyReason({ container, health }) === undefined,
    url,
    image: container?.image ?? null,
    imageId: container?.imageId ?? null,
    version: health?.body[version] ?? null,
    revision: health?.body[revision] ?? null,
  });
  const { dev, prod } = observed.environments;
  return {
    active: observed.active,
    prodTag: observed.prodTag ?? null,
    environments: { dev: describe(dev), prod: describe(prod) },
  };
}
