// Finding the older setup, by the engine's containers, by compose files, or both. Nothing is changed; anything that
// [migrate] of release.toml does not describe is a problem here, never a guess.
import { realpath, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { type Command, probe } from '../command.ts';
import { parseResolved, parseServices } from '../docker/compose.ts';
import { docker } from '../docker/engine.ts';
import {
  type Container,
  containerIds,
  inspectContainers,
  inspectVolume,
  type Mount,
} from '../docker/objects.ts';
import { combinedError, TaskError, usageError } from '../errors.ts';
import type { Project } from '../project.ts';
import type { LegacyDescription } from '../project-schema.ts';
import { isLegacyData, legacyContainers, legacyEvidence } from '../setup/legacy.ts';
import { exists } from './kept.ts';

/** The older setup as data: enough to stop it, to carry it over and to bring it back. */
export const legacySchema = z.strictObject({
  service: z.string(),
  /** Compose project it belongs to. */
  project: z.string(),
  /** Absolute paths of its compose files, in compose's order. */
  composeFiles: z.array(z.string()),
  /** Folder that relative paths in them are resolved against. */
  directory: z.string(),
  /** stopped: its container is there; absent: only its files are. */
  state: z.enum(['running', 'stopped', 'absent']),
  image: z.string(),
  container: z.string().nullable(),
  /** Host ports, and the address that they listen on; `0.0.0.0`: every one. */
  ports: z.array(z.number()),
  address: z.string().default('127.0.0.1'),
  /** As it is mounted, and with symbolic links resolved. */
  data: z.strictObject({ source: z.string(), path: z.string() }),
  /** Volume of its model files. */
  models: z.string().nullable(),
  /** Read-only mounts: its settings; not carried over as they are. */
  readOnlyMounts: z.array(z.string()),
  network: z.string().nullable(),
  /** Why it was taken for the older setup. */
  evidence: z.array(z.string()),
});

export type Legacy = z.output<typeof legacySchema>;

/** What a container or a compose file says of the service, in one form. */
interface Shape {
  image: string;
  mounts: Mount[];
  /** Host ports. */
  ports: number[];
  networks: string[];
}

const composeLabel = ({ labels }: Container, name: string) => labels[`com.docker.compose.${name}`];

export async function allContainers(): Promise<Container[]> {
  return inspectContainers(await containerIds({}));
}

/**
 * The older setup, or undefined if there is none. `from`: its compose file, or the folder of it.
 * @throws TaskError naming everything that is not understood; nothing was changed then
 */
export async function detectLegacy(
  project: Project,
  description: LegacyDescription,
  from?: string,
): Promise<Legacy | undefined> {
  const files =
    from === undefined
      ? await findComposeFiles(project, description)
      : [await composeFileAt(description, from)];
  let containers = legacyContainers(description, await allContainers(), project.project.name);
  if (from !== undefined) {
    const { name } = await resolveCompose(composeHandle(files));
    containers = containers.filter((container) => composeLabel(container, 'project') === name);
  }
  if (containers.length > 1) {
    const names = containers.map(({ name }) => name).join(', ');
    throw unknown(`there are several: ${names}; name the compose file of one: --from FILE`);
  }
  const [container] = containers;
  if (container) {
    const handle = await handleOf(description, container, files);
    return describeLegacy(description, handle, container);
  }
  if (files.length > 1)
    throw unknown(`there are several compose files: ${files.join(', ')}; name one: --from FILE`);
  return files.length === 0 ? undefined : describeLegacy(description, composeHandle(files));
}

/** The compose files that a container was made from. @throws TaskError saying which one is missing */
async function handleOf(
  { service }: LegacyDescription,
  container: Container,
  files: readonly string[],
): Promise<ComposeHandle> {
  const project = composeLabel(container, 'project');
  if (!project) throw unknown(`the container ${container.name} was not started by docker compose`);
  const label = composeLabel(container, 'project.config_files') ?? '';
  // Compose joins them by commas, which a path may have, too.
  const labelled = (await exists(label)) ? [label] : label.split(',').filter(Boolean);
  const present = await Promise.all(labelled.map((path) => realpath(path).catch(() => undefined)));
  const directory = composeLabel(container, 'project.working_dir');
  if (labelled.length > 0 && present.every((path) => path !== undefined))
    return composeHandle(present, project, directory);
  for (const file of files)
    if ((await resolveCompose(composeHandle([file]))).name === project) return composeHandle([file], project);
  const gone = labelled.filter((_path, index) => !present[index]).join(', ') || 'unknown';
  throw new TaskError(
    `The compose file of ${container.name} is gone: ${gone}. A rollback needs it to start the old service`,
    {
      code: 'no-compose-file',
      hint: [
        `restore it, or write one that matches the container: docker inspect ${container.name}`,
        `it needs name: ${project} and the service ${service} with image ${container.image}, its ports, volumes, environment, networks`,
        'then: npm run migrate -- --from FILE; nothing was changed',
      ].join('\n'),
    },
  );
}

async function describeLegacy(
  description: LegacyDescription,
  handle: ComposeHandle,
  container?: Container,
): Promise<Legacy> {
  const { service } = description;
  const { name, services } = await resolveCompose(handle);
  const [file = ''] = handle.composeFiles;
  const found = services[service];
  const names = Object.keys(services).join(', ');
  if (!found) throw unknown(`${file} has no service ${service}, but ${names}`);
  const shape = container ? { ...container, ports: container.publishedPorts } : found;
  const understood = understand(description, shape);
  const several =
    Object.keys(services).length > 1
      ? [unknown(`${file} has ${names.split(', ').length} services: ${names}`)]
      : [];
  if (Array.isArray(understood) || several.length > 0)
    throw combinedError('Cannot understand the older setup:', [
      ...several,
      ...(Array.isArray(understood) ? understood : []),
    ]);
  const { data, models, ...rest } = understood;
  const isRunning = container && ['running', 'restarting', 'paused'].includes(container.state);
  const path = await realpath(data).catch((cause: Error) => {
    const message = `Cannot read the data directory ${data} of the older setup: ${cause.message}`;
    throw new TaskError(message, { code: 'data-directory', hint: 'nothing was changed', cause });
  });
  return {
    ...rest,
    service,
    project: handle.project ?? name,
    composeFiles: [...handle.composeFiles],
    directory: handle.directory,
    state: container ? (isRunning ? 'running' : 'stopped') : 'absent',
    image: shape.image,
    address: found.address || '0.0.0.0',
    container: container?.name ?? null,
    data: { source: data, path },
    models: models && (await inspectVolume(models)) ? models : null,
    evidence: container ? legacyEvidence(description, container) : [`compose file ${file}`],
  };
}

type Understood = Pick<Legacy, 'ports' | 'models' | 'readOnlyMounts' | 'network'> & { data: string };

/** What is understood of the service, or every reason why it is not. Pure. */
export function understand(description: LegacyDescription, shape: Shape): Understood | TaskError[] {
  const { models_volume_suffix: suffix, models_targets, data_targets } = description;
  const isModels = ({ type, source, target }: Mount) =>
    type === 'volume' && (source.endsWith(suffix) || models_targets.includes(target));
  const data = shape.mounts.filter((mount) => isLegacyData(description, mount));
  const models = shape.mounts.filter(isModels);
  const others = shape.mounts.filter((mount) => !data.includes(mount) && !models.includes(mount));
  const writable = others.filter(({ type, isReadOnly }) => !isReadOnly && type !== 'tmpfs');
  const sources = (mounts: readonly Mount[]) => mounts.map(({ source }) => source).join(', ');
  const problems = [
    data.length === 0 && `no directory of this machine is mounted on ${data_targets.join(' or ')}`,
    data.length > 1 && `it has several data directories: ${sources(data)}`,
    ...writable.map(
      ({ type, source, target }) => `it writes to the ${type} ${source || '(anonymous)'} on ${target}`,
    ),
    models.length > 1 && `it has several models volumes: ${sources(models)}`,
    shape.ports.length === 0 && 'it publishes no port',
    shape.networks.length > 1 && `it is in several networks: ${shape.networks.join(', ')}`,
  ].filter((problem) => problem !== false);
  if (problems.length > 0) return problems.map(unknown);
  const [network = ''] = shape.networks;
  return {
    ports: shape.ports,
    models: models[0]?.source ?? null,
    readOnlyMounts: others.filter(({ isReadOnly }) => isReadOnly).map(({ source }) => source),
    data: data[0]!.source,
    network: ['', 'bridge', 'host', 'none'].includes(network) ? null : network,
  };
}

/** Something that this migration was not made for. */
function unknown(what: string): TaskError {
  return new TaskError(`Not understood: ${what}`, {
    code: 'unknown-shape',
    hint: 'nothing was changed; describe the older setup in [migrate] of configs/release.toml',
  });
}

// Its compose file: where it is, what it says, and commands on it.

/** What the commands need. */
export interface ComposeHandle {
  project: string | undefined;
  composeFiles: readonly string[];
  directory: string;
}

export function legacyCommand(handle: ComposeHandle, ...argv: string[]): Command {
  return docker(
    'compose',
    ...(handle.project ? ['--project-name', handle.project] : []),
    ...['--project-directory', handle.directory],
    ...handle.composeFiles.flatMap((file) => ['--file', file]),
    ...argv,
  );
}

function composeHandle(files: readonly string[], project?: string, directory?: string): ComposeHandle {
  return { project, composeFiles: files, directory: directory ?? dirname(files[0]!) };
}

/** The compose files that lie where they are known to lie, with symbolic links resolved, each once. */
async function findComposeFiles(project: Project, description: LegacyDescription): Promise<string[]> {
  const candidates = description.places.flatMap((place) =>
    description.compose_files.map((name) => join(resolve(project.root, place), name)),
  );
  const found = await Promise.all(candidates.map((path) => realpath(path).catch(() => undefined)));
  return [...new Set(found.filter((path) => path !== undefined))];
}

/** `--from`: a compose file, or the folder that it lies in. @throws TaskError (exit 2) if there is none */
async function composeFileAt({ compose_files }: LegacyDescription, from: string): Promise<string> {
  for (const path of [...compose_files.map((name) => join(from, name)), from]) {
    const found = await stat(path).catch(() => undefined);
    if (found?.isFile()) return realpath(path);
  }
  throw usageError(`There is no compose file at ${from}`, {
    code: 'no-compose-file',
    hint: `give the file itself, or the folder with ${compose_files.join(' or ')}`,
  });
}

interface ResolvedCompose {
  name: string;
  services: Record<string, Shape & { address: string | undefined; environment: Record<string, string> }>;
}

/** @throws TaskError (unknown shape) with compose's own words if it cannot be read */
export async function resolveCompose(handle: ComposeHandle): Promise<ResolvedCompose> {
  const answer = await probe(legacyCommand(handle, 'config', '--format', 'json'));
  if (!answer.ok) {
    throw new TaskError(`Cannot read ${handle.composeFiles.join(', ')}: ${answer.stderr.trim()}`, {
      code: 'unknown-shape',
      hint: 'fix it, or name another one: --from FILE; nothing was changed',
    });
  }
  const model = parseResolved(answer.stdout);
  const { name, services, volumes = {}, networks = {} } = model;
  const known = parseServices(model);
  const describe = (key: string): ResolvedCompose['services'][string] => ({
    image: known[key]!.image || `${name}-${key}`,
    environment: known[key]!.environment,
    ports: known[key]!.ports,
    address: known[key]!.publishes[0]?.address,
    mounts: (services[key]!.volumes ?? []).map(({ type, source = '', target, read_only = false }) => ({
      ...{ type, target, isReadOnly: read_only },
      source: type === 'volume' ? (volumes[source]?.name ?? source) : source,
    })),
    networks: Object.keys(services[key]!.networks ?? {}).map((one) => networks[one]?.name ?? one),
  });
  return { name, services: Object.fromEntries(Object.keys(services).map((key) => [key, describe(key)])) };
}
