// Trying an image once, alone, before it counts: prod's service as compose resolves it, with its environment, limits and
// secrets, in a throw-away compose project that also starts what it depends on and disappears afterwards. It must become
// healthy and say that it is the version and commit that it was built from.
import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { run } from '../command.ts';
import { TaskError } from '../errors.ts';
import { dataDirectory, imageReference, type Project, portOf, variable } from '../project.ts';
import { uninterrupted } from '../session.ts';
import {
  copyFilesInto,
  modelInput,
  type ResolvedModel,
  type ResolvedService,
  resolvedModel,
  takeOutFiles,
} from './compose.ts';
import { docker, queryEngine } from './engine.ts';
import { type ExpectedHealth, type HealthAnswer, waitForHealth } from './health.ts';
import { containerIds, imageNames, inspectContainers, lastLogLines } from './objects.ts';
import { withEngineRetries } from './registry.ts';
import { withReach } from './remote.ts';

const LABEL = 'release-flow.candidate';

export interface Trial {
  image: string;
  expected: ExpectedHealth;
  /** A directory on the engine's machine that stands for the data directory; without it the data is empty. */
  data?: string;
  /** The compose files as they were resolved already; without it they are resolved now. */
  model?: ResolvedModel | undefined;
}

/** A service and everything that it depends on. */
function withDependencies(
  services: ResolvedModel['services'],
  name: string,
  found = new Set<string>(),
): Set<string> {
  if (found.has(name)) return found;
  found.add(name);
  for (const next of Object.keys(services[name]?.depends_on ?? {})) withDependencies(services, next, found);
  return found;
}

/**
 * The model of a trial: no fixed name, no published port, no restart, and nothing of prod's data. Networks of its own, but
 * only where it depends on others: making and removing one takes a third of the trial. Read-only binds stay, since a
 * service cannot start without its files and cannot change them. Pure.
 */
export function candidateModel(
  project: Project,
  model: ResolvedModel,
  { image, data }: Trial,
): ResolvedModel {
  const prod = project.environments.prod.service;
  const label = { [LABEL]: project.project.name };
  const names = [...withDependencies(model.services, prod)].filter((name) => model.services[name]);
  const isAlone = names.length === 1;
  const isolate = (service: ResolvedService): ResolvedService => {
    type Mount = NonNullable<ResolvedService['volumes']>[number];
    const isData = ({ type, source }: Mount) => type === 'bind' && source === dataDirectory(project);
    const isKept = (mount: Mount) => (data && isData(mount)) || (mount.type === 'bind' && mount.read_only);
    const mounts = service.volumes ?? [];
    const volumes = mounts
      .filter(isKept)
      .map((mount) => (data && isData(mount) ? { ...mount, source: data } : mount));
    // The short form, because compose 2.26 forgets the mode of the long one; with an owner, because runc gives the mount
    // the mode of the image's directory, whose owner would else be root.
    const [, uid, gid = uid] = /^(\d+)(?::(\d+))?$/.exec(String(service.user ?? '')) ?? [];
    const options = `mode=1777${uid ? `,uid=${uid},gid=${gid}` : ''}`;
    const empty = mounts.filter((mount) => !isKept(mount)).map(({ target }) => `${target}:${options}`);
    const networks = Object.fromEntries(Object.keys(service.networks ?? {}).map((name) => [name, null]));
    const place = isAlone ? { network_mode: 'bridge', networks: undefined } : { networks };
    const tmpfs = [...((service.tmpfs as string[] | undefined) ?? []), ...empty];
    const without = { container_name: undefined, ports: undefined, profiles: undefined, build: undefined };
    const labels = { ...service.labels, ...label };
    return { ...service, ...without, volumes, tmpfs, ...place, restart: 'no', labels };
  };
  const services = Object.fromEntries(names.map((name) => [name, isolate(model.services[name]!)]));
  const own = {
    image,
    pull_policy: 'never',
    ports: [{ target: targetPort(project, model), host_ip: '127.0.0.1' }],
  };
  services[prod] = { ...services[prod], ...own };
  const networks = Object.keys(model.networks ?? {}).map((name) => [name, { labels: label }]);
  const { name, configs, secrets } = model;
  return {
    ...{ name, services, configs, secrets },
    networks: isAlone ? undefined : Object.fromEntries(networks),
  };
}

/** The port inside the container that prod publishes on its host port. */
function targetPort(project: Project, model: ResolvedModel): number {
  const { service } = project.environments.prod;
  const ports = model.services[service]?.ports ?? [];
  const port = ports.find(({ published }) => Number(published) === portOf(project, 'prod')) ?? ports[0];
  if (port) return port.target;
  throw new TaskError(`Service ${service} publishes no port that its health could be asked on`, {
    code: 'config-invalid',
    hint: 'publish one in the compose file',
  });
}

/** An engine that removes another image at that moment was once seen to miss one that it had just loaded. */
const MISSING = /no such image/i;

/**
 * Starts an image as prod's service, waits until it is healthy and the right one, removes it whatever happens.
 * @throws TaskError with the container's last log lines
 */
export async function tryCandidate(project: Project, trial: Trial): Promise<HealthAnswer | undefined> {
  const name = `${project.project.name}-candidate-${randomBytes(4).toString('hex')}`;
  const { service } = project.environments.prod;
  const resolved = trial.model ?? (await resolvedModel(project, variable(project, 'PROD_TAG')));
  const port = targetPort(project, resolved);
  const model = candidateModel(project, resolved, trial);
  const files = await takeOutFiles(model);
  const input = modelInput(model);
  const compose = (...argv: string[]) => docker('compose', '--project-name', name, '--file', '-', ...argv);
  try {
    const start = async () => {
      // Files can only be copied into a container that exists and has not started.
      if (Object.values(files).some((own) => own.length > 0))
        await run(compose('create', '--no-build'), { input });
      for (const [other, own] of Object.entries(files)) await copyFilesInto(`${name}-${other}-1`, own);
      await run(compose('up', '--detach', '--no-build', '--no-recreate', service), { input });
    };
    await withEngineRetries(MISSING, start);
    return await waitUntilProven(project, `${name}-${service}-1`, port, trial.expected);
  } catch (error) {
    throw await withLogs(`${name}-${service}-1`, trial.image, error);
  } finally {
    const trial = { label: [`com.docker.compose.project=${name}`] };
    await uninterrupted(() => removeAll(trial).catch(() => {}));
  }
}

async function waitUntilProven(project: Project, container: string, port: number, expected: ExpectedHealth) {
  const { health } = project.environments.prod;
  return withReach(async (reach) => {
    const { url, ...by } = await reach(await publishedPort(container, port));
    return waitForHealth({
      url: url + health,
      ...by,
      keys: project.health,
      expected,
      timeoutSeconds: project.candidate.timeout,
      givenUp: () => causeOfDeath(container),
    });
  });
}

async function publishedPort(container: string, port: number): Promise<number> {
  const bindings = z.array(z.object({ HostPort: z.coerce.number() })).nullable();
  const schema = z.object({ NetworkSettings: z.object({ Ports: z.record(z.string(), bindings) }) });
  const { data } = schema.safeParse(await queryEngine(`/containers/${encodeURIComponent(container)}/json`));
  // A container that has already died has no ports any more.
  const published = data?.NetworkSettings.Ports[`${port}/tcp`]?.[0]?.HostPort;
  if (published) return published;
  throw new TaskError((await causeOfDeath(container)) ?? 'its port was not published', { code: 'unhealthy' });
}

async function causeOfDeath(name: string): Promise<string | undefined> {
  const [container] = await inspectContainers([name]);
  if (container && ['created', 'running', 'restarting'].includes(container.state)) return undefined;
  return container ? `its container exited with code ${container.exitCode}` : 'its container is gone';
}

async function withLogs(name: string, image: string, error: unknown): Promise<unknown> {
  if (!(error instanceof TaskError) || error.code === 'interrupted') return error;
  const logs = await lastLogLines(name).catch(() => '');
  const tail = logs ? `\nIts last log lines:\n${logs.replace(/^/gm, '    ')}` : '';
  return new TaskError(`The image ${image} does not start: ${error.message}${tail}`, {
    code: 'candidate-unhealthy',
    hint: 'nothing was released; repair it and release again',
    cause: error,
  });
}

/** Local name of an image that is not released yet. */
export function candidateReference(project: Project, commit: string): string {
  return imageReference(project, `candidate-${commit.startsWith('<') ? 'COMMIT' : commit.slice(0, 12)}`);
}

/** Removes the containers, networks and image names of candidates, a killed run's included. */
export async function removeCandidates(project: Project): Promise<void> {
  await removeAll({ label: [`${LABEL}=${project.project.name}`] });
  const images = await imageNames(imageReference(project, 'candidate-'));
  if (images.length > 0) await run(docker('image', 'rm', '--no-prune', ...images));
}

/** Containers with their anonymous volumes, and networks. */
async function removeAll(filters: Record<string, string[]>): Promise<void> {
  const containers = await containerIds(filters);
  if (containers.length > 0) await run(docker('rm', '--force', '--volumes', ...containers));
  const answer = await queryEngine(`/networks?filters=${encodeURIComponent(JSON.stringify(filters))}`);
  const networks = z.array(z.object({ Id: z.string() })).parse(answer);
  if (networks.length > 0) await run(docker('network', 'rm', ...networks.map(({ Id }) => Id)));
}
