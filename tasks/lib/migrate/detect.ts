// Finding the older setup: by the engine's containers, by compose files, or both. Nothing is changed; what is
// not understood is said, and then nothing goes on.

import { access, constants, lstat, readdir, readFile, realpath, stat, statfs } from 'node:fs/promises';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { z } from 'zod';
import { backupDirectory } from '../backup/program.ts';
import { type Command, probe, read, run } from '../command.ts';
import { parseResolved, resolvedConfig } from '../docker/compose.ts';
import { askEngine, docker, engineInfo, withEngine } from '../docker/engine.ts';
import { askHealth } from '../docker/health.ts';
import { overlaps } from '../docker/network.ts';
import { containerIds, inspectImage, projectContainers } from '../docker/objects.ts';
import { combinedError, EXIT, TaskError } from '../errors.ts';
import { ensureStateDirectory, readIfPresent, replaceFile, statePath } from '../files.ts';
import {
  dataDirectory,
  ENVIRONMENTS,
  type EnvironmentName,
  type Project,
  portOf,
  TASKS_FOLDER,
  variable,
  variableName,
} from '../project.ts';
import type { LegacyDescription } from '../project-schema.ts';
import { session } from '../session.ts';
import { isFree, listeningProcess, publishingContainer } from '../switch/checks.ts';

/** What is there, before it is understood. */
interface Found {
  container: EngineContainer | undefined;
  composeFiles: string[];
  isRebuilt: boolean;
  directory: string | undefined;
}

const composeLabel = (container: EngineContainer, name: string) =>
  container.labels[`com.docker.compose.${name}`];

/**
 * The older setup, or undefined if there is none. `from`: its compose file, or the folder of it.
 * @throws TaskError naming everything that is not understood; nothing was changed then
 */
export async function detectLegacy(
  project: Project,
  description: LegacyDescription,
  from?: string,
): Promise<Legacy | undefined> {
  const named = from === undefined ? undefined : await composeFileFrom(description, from);
  const files = named ? [named] : await findComposeFiles(project, description);
  const all = legacyContainers(description, await engineContainers(), project.project.name);
  const containers = named ? await ofComposeFile(all, named) : all;
  if (containers.length > 1) {
    const names = containers.map(({ name }) => name).join(', ');
    throw unknown(`there are several: ${names}; name the compose file of one: --from FILE`);
  }
  const [container] = containers;
  if (container) return describeLegacy(description, await filesOf(project, container, files));
  if (files.length > 1)
    throw unknown(`there are several compose files: ${files.join(', ')}; name one: --from FILE`);
  if (files.length === 0) return undefined;
  return describeLegacy(description, {
    container,
    composeFiles: files,
    isRebuilt: false,
    directory: undefined,
  });
}

async function ofComposeFile(containers: readonly EngineContainer[], file: string) {
  const { name } = await resolveCompose(composeHandle([file]));
  return containers.filter((container) => composeLabel(container, 'project') === name);
}

/** The compose files that a container was made from; rebuilt where they are gone. */
async function filesOf(
  project: Project,
  container: EngineContainer,
  files: readonly string[],
): Promise<Found> {
  const name = composeLabel(container, 'project');
  if (!name) throw unknown(`the container ${container.name} was not started by docker compose`);
  const labelled = (composeLabel(container, 'project.config_files') ?? '').split(',').filter(Boolean);
  const present = await Promise.all(labelled.map((path) => realpath(path).catch(() => undefined)));
  const directory = composeLabel(container, 'project.working_dir');
  if (labelled.length > 0 && present.every((path) => path !== undefined)) {
    return { container, composeFiles: present as string[], isRebuilt: false, directory };
  }
  for (const file of files) {
    const { name: resolved } = await resolveCompose(composeHandle([file]));
    if (resolved === name)
      return { container, composeFiles: [file], isRebuilt: false, directory: dirname(file) };
  }
  const rebuilt = await writeRebuilt(project, container);
  return { container, composeFiles: [rebuilt], isRebuilt: true, directory };
}

async function shapeOf({ container, composeFiles, directory }: Found, description: LegacyDescription) {
  const isThere = await Promise.all(composeFiles.map(readIfPresent));
  const resolved = isThere.every((text) => text !== undefined)
    ? await resolveCompose(composeHandle(composeFiles, undefined, directory))
    : undefined;
  const problems: TaskError[] = [];
  const services = Object.keys(resolved?.services ?? {});
  const [file = ''] = composeFiles;
  if (resolved && !services.includes(description.service))
    problems.push(unknown(`${file} has no service ${description.service}, but ${services.join(', ')}`));
  else if (services.length > 1)
    problems.push(unknown(`${file} has ${services.length} services: ${services.join(', ')}`));
  const shape: Shape | undefined = container
    ? { ...container, ports: container.ports.map(({ host }) => host) }
    : resolved?.services[description.service];
  return { resolved, shape, problems };
}

async function describeLegacy(description: LegacyDescription, found: Found): Promise<Legacy> {
  const { container, composeFiles } = found;
  const { resolved, shape, problems } = await shapeOf(found, description);
  const understood = shape ? understand(description, shape) : [];
  if (problems.length > 0 || Array.isArray(understood)) {
    const all = [...problems, ...(Array.isArray(understood) ? understood : [])];
    throw combinedError('The older setup is not understood:', all);
  }
  const { ports, models, readOnlyMounts, data, network } = understood;
  return {
    service: description.service,
    project: (container && composeLabel(container, 'project')) ?? resolved?.name ?? '',
    composeFiles,
    directory: found.directory ?? dirname(composeFiles[0]!),
    isRebuilt: found.isRebuilt,
    state: container ? (container.isRunning ? 'running' : 'stopped') : 'absent',
    container: container?.name,
    image: shape!.image,
    ports,
    data: { source: data, path: await dataPath(data) },
    models: models && (await engineVolume(models)) ? models : undefined,
    readOnlyMounts,
    network: await networkOf(network, resolved?.networks ?? {}),
    evidence: container ? evidenceOf(description, container) : [`compose file ${composeFiles[0]}`],
  };
}

async function dataPath(source: string): Promise<string> {
  return realpath(source).catch((error: NodeJS.ErrnoException) => {
    throw new TaskError(`Cannot read the data directory ${source} of the older setup: ${error.message}`, {
      code: 'data-directory',
      hint: 'nothing was changed',
    });
  });
}

async function networkOf(name: string, resolved: Record<string, string[]>): Promise<Legacy['network']> {
  if (!name || ['bridge', 'host', 'none'].includes(name)) return undefined;
  const present = (await engineNetworks()).find((network) => network.name === name);
  return { name, subnets: present?.subnets ?? resolved[name] ?? [] };
}

// The older setup as data: what was found of it, enough to stop it, to carry it over and to bring it back.
export interface Legacy {
  service: string;
  /** Compose project it belongs to. */
  project: string;
  /** Absolute paths of its compose files, in compose's order. */
  composeFiles: string[];
  /** Folder that relative paths in them are resolved against. */
  directory: string;
  /** There is no compose file: it was rebuilt from the container. */
  isRebuilt: boolean;
  /** running; stopped: its container is there; absent: only its files are. */
  state: 'running' | 'stopped' | 'absent';
  /** Its container, for people. */
  container: string | undefined;
  image: string;
  /** Host ports. */
  ports: number[];
  /** As it is mounted, and with symbolic links resolved. */
  data: { source: string; path: string };
  models: string | undefined;
  /** Read-only mounts: its settings; not carried over as they are. */
  readOnlyMounts: string[];
  network: { name: string; subnets: string[] } | undefined;
  /** Why it was taken for the older setup. */
  evidence: string[];
}

/** A mount, as compose and the engine both describe it. */
export interface Mount {
  type: string;
  /** Host path, or volume name. */
  source: string;
  target: string;
  isReadOnly: boolean;
}

/** What a container or a compose file says of the service, in one form. */
interface Shape {
  image: string;
  mounts: Mount[];
  /** Host ports. */
  ports: number[];
  networks: string[];
}

// The older setup's compose file: where it is, what it says, and commands on it. Variables of ours and of the
// shell stay out, so that it means the same now and at a rollback.

/** What of a Legacy the commands need. */
interface ComposeHandle {
  project: string | undefined;
  composeFiles: readonly string[];
  directory: string;
}

const ENVIRONMENT = { COMPOSE_FILE: undefined, COMPOSE_PROFILES: undefined, COMPOSE_PROJECT_NAME: undefined };

export function legacyCommand(handle: ComposeHandle, ...argv: string[]): Command {
  return docker(
    'compose',
    ...(handle.project ? ['--project-name', handle.project] : []),
    ...['--project-directory', handle.directory],
    ...handle.composeFiles.flatMap((file) => ['--file', file]),
    ...argv,
  );
}

export const legacyOptions = (handle: ComposeHandle) => ({ cwd: handle.directory, env: ENVIRONMENT });

/** The compose files that lie where they are known to lie, with symbolic links resolved, each once. */
async function findComposeFiles(project: Project, description: LegacyDescription): Promise<string[]> {
  const candidates = description.places.flatMap((place) =>
    description.compose_files.map((name) => join(resolve(project.root, place), name)),
  );
  const found = await Promise.all(candidates.map((path) => realpath(path).catch(() => undefined)));
  return [...new Set(found.filter((path) => path !== undefined))];
}

/** `--from`: a compose file, or the folder that it lies in. @throws TaskError (exit 2) if there is none */
async function composeFileFrom(description: LegacyDescription, from: string): Promise<string> {
  for (const path of [...description.compose_files.map((name) => join(from, name)), from]) {
    const found = await stat(path).catch(() => undefined);
    if (found?.isFile()) return realpath(path);
  }
  throw new TaskError(`There is no compose file at ${from}`, {
    code: 'no-compose-file',
    exitCode: EXIT.usage,
    hint: `give the file itself, or the folder with ${description.compose_files.join(' or ')}`,
  });
}

interface ResolvedCompose {
  name: string;
  services: Record<string, { environment: Record<string, string> } & Shape>;
  /** Network name → its subnets. */
  networks: Record<string, string[]>;
}

/** @throws TaskError (unknown shape) with compose's own words if it cannot be read */
export async function resolveCompose(handle: ComposeHandle): Promise<ResolvedCompose> {
  const answer = await probe(legacyCommand(handle, 'config', '--format', 'json'), legacyOptions(handle));
  if (!answer.ok) {
    throw new TaskError(`Cannot read ${handle.composeFiles.join(', ')}: ${answer.stderr.trim()}`, {
      code: 'unknown-shape',
      hint: 'repair it, or name another one: --from FILE; nothing was changed',
    });
  }
  const parsed = (await composeSchema()).parse(JSON.parse(answer.stdout.replaceAll('$$', '$')));
  const names = (kind: 'volumes' | 'networks', key: string) => parsed[kind][key]?.name ?? key;
  const services = Object.entries(parsed.services).map(([name, service]) => [
    name,
    {
      image: service.image || `${parsed.name}-${name}`,
      environment: service.environment,
      mounts: service.volumes.map(({ type, source, target, read_only }) => ({
        type,
        source: type === 'volume' ? names('volumes', source) : source,
        target,
        isReadOnly: read_only,
      })),
      ports: service.ports.flatMap(({ published }) => (published ? [published] : [])),
      networks: Object.keys(service.networks).map((key) => names('networks', key)),
    },
  ]);
  const networks = Object.entries(parsed.networks).map(([key, network]) => [
    names('networks', key),
    network.ipam.config.flatMap(({ subnet }) => (subnet ? [subnet] : [])),
  ]);
  return {
    name: parsed.name,
    services: Object.fromEntries(services),
    networks: Object.fromEntries(networks),
  };
}

async function composeSchema() {
  const mount = z.object({
    type: z.string(),
    source: z.string().default(''),
    target: z.string(),
    read_only: z.boolean().default(false),
  });
  const service = z.object({
    image: z.string().default(''),
    environment: z
      .record(z.string(), z.string().nullable())
      .nullish()
      .transform((found) =>
        Object.fromEntries(Object.entries(found ?? {}).map(([name, value]) => [name, value ?? ''])),
      ),
    volumes: z.array(mount).default([]),
    ports: z.array(z.object({ published: z.coerce.number().optional() })).default([]),
    networks: z.record(z.string(), z.unknown()).default({}),
  });
  const named = z.object({ name: z.string().optional() });
  const ipam = z.object({ config: z.array(z.object({ subnet: z.string().optional() })).default([]) });
  return z.object({
    name: z.string(),
    services: z.record(z.string(), service),
    volumes: z.record(z.string(), named).default({}),
    networks: z.record(z.string(), named.extend({ ipam: ipam.prefault({}) })).default({}),
  });
}

/** The handle of compose files that lie at absolute paths. */
export function composeHandle(files: readonly string[], project?: string, directory?: string): ComposeHandle {
  const [first = '/'] = files;
  return { project, composeFiles: files.filter(isAbsolute), directory: directory ?? dirname(first) };
}

// What the engine knows that a migration decides by: all containers, networks and volumes, checked at this edge.

export interface EngineContainer {
  id: string;
  name: string;
  isRunning: boolean;
  image: string;
  imageId: string;
  labels: Record<string, string>;
  environment: string[];
  mounts: Mount[];
  /** Host ports, also of a stopped container. */
  ports: { host: number; container: string; address: string }[];
  networks: string[];
  restart: string;
  command: string[] | null;
  entrypoint: string[] | null;
  user: string;
  memory: number;
  nanoCpus: number;
}

export interface EngineNetwork {
  name: string;
  driver: string;
  labels: Record<string, string>;
  subnets: string[];
  gateways: string[];
  /** Ids of running containers in it. */
  containers: string[];
}

export interface EngineVolume {
  name: string;
  driver: string;
  labels: Record<string, string>;
}

/** Everything of a kind, one by one: a list tells less. One that vanishes in between is left out. */
function inspectAll(kind: 'containers' | 'networks', list: string): Promise<unknown[]> {
  return withEngine(async (ask) => {
    const listed = (await ask(list)) as { Id: string }[];
    const found = await Promise.all(
      listed.map(({ Id }) => ask(kind === 'containers' ? `/containers/${Id}/json` : `/networks/${Id}`)),
    );
    return found.filter((one) => one !== undefined);
  });
}

async function containerSchema() {
  const binding = z.object({ HostIp: z.string().default(''), HostPort: z.string().default('') });
  return z.object({
    Id: z.string(),
    Name: z.string(),
    Image: z.string(),
    State: z.object({ Status: z.string() }),
    Config: z.object({
      Image: z.string(),
      Labels: z.record(z.string(), z.string()).nullish(),
      Env: z.array(z.string()).nullish(),
      Cmd: z.array(z.string()).nullish(),
      Entrypoint: z.array(z.string()).nullish(),
      User: z.string().default(''),
    }),
    HostConfig: z.object({
      PortBindings: z.record(z.string(), z.array(binding).nullable()).nullish(),
      RestartPolicy: z.object({ Name: z.string() }),
      Memory: z.number().default(0),
      NanoCpus: z.number().default(0),
    }),
    Mounts: z.array(
      z.object({
        Type: z.string(),
        Name: z.string().optional(),
        Source: z.string().default(''),
        Destination: z.string(),
        RW: z.boolean(),
      }),
    ),
    NetworkSettings: z.object({ Networks: z.record(z.string(), z.unknown()).nullish() }),
  });
}

/** Every container, running or not. @throws TaskError when no engine answers */
export async function engineContainers(): Promise<EngineContainer[]> {
  const schema = await containerSchema();
  const found = z.array(schema).parse(await inspectAll('containers', '/containers/json?all=1'));
  return found.map(({ Config, HostConfig, ...one }) => ({
    id: one.Id,
    name: one.Name.replace(/^\//, ''),
    isRunning: ['running', 'restarting', 'paused'].includes(one.State.Status),
    image: Config.Image,
    imageId: one.Image,
    labels: Config.Labels ?? {},
    environment: Config.Env ?? [],
    mounts: one.Mounts.map((mount) => ({
      type: mount.Type,
      source: mount.Type === 'volume' ? (mount.Name ?? '') : mount.Source,
      target: mount.Destination,
      isReadOnly: !mount.RW,
    })),
    ports: Object.entries(HostConfig.PortBindings ?? {}).flatMap(([container, bindings]) =>
      (bindings ?? []).map(({ HostIp, HostPort }) => ({
        host: Number(HostPort),
        container,
        address: HostIp,
      })),
    ),
    networks: Object.keys(one.NetworkSettings.Networks ?? {}),
    restart: HostConfig.RestartPolicy.Name || 'no',
    command: Config.Cmd ?? null,
    entrypoint: Config.Entrypoint ?? null,
    user: Config.User,
    memory: HostConfig.Memory,
    nanoCpus: HostConfig.NanoCpus,
  }));
}

/** Every network. @throws TaskError when no engine answers */
export async function engineNetworks(): Promise<EngineNetwork[]> {
  const range = z.object({ Subnet: z.string().default(''), Gateway: z.string().default('') });
  const schema = z.object({
    Name: z.string(),
    Driver: z.string(),
    Labels: z.record(z.string(), z.string()).nullish(),
    IPAM: z.object({ Config: z.array(range).nullish() }),
    Containers: z.record(z.string(), z.unknown()).nullish(),
  });
  const found = z.array(schema).parse(await inspectAll('networks', '/networks'));
  return found.map((network) => ({
    name: network.Name,
    driver: network.Driver,
    labels: network.Labels ?? {},
    subnets: (network.IPAM.Config ?? []).map(({ Subnet }) => Subnet).filter(Boolean),
    gateways: (network.IPAM.Config ?? []).map(({ Gateway }) => Gateway),
    containers: Object.keys(network.Containers ?? {}),
  }));
}

/** A volume by its name, or undefined. */
export async function engineVolume(name: string): Promise<EngineVolume | undefined> {
  const answer = await askEngine(`/volumes/${encodeURIComponent(name)}`);
  if (answer === undefined) return undefined;
  const schema = z.object({
    Name: z.string(),
    Driver: z.string(),
    Labels: z.record(z.string(), z.string()).nullish(),
  });
  const volume = schema.parse(answer);
  return { name: volume.Name, driver: volume.Driver, labels: volume.Labels ?? {} };
}

// Looking at everything that a migration depends on: data, room, ports, networks, models. Changes nothing.

async function surveyPort(project: Project, legacy: Legacy, name: EnvironmentName) {
  const port = portOf(project, name);
  const isOurs = legacy.state === 'running' && legacy.ports.includes(port);
  if (isOurs || (await isFree({ published: port, target: 0, address: '' })))
    return { port, holder: undefined };
  const holder = (await publishingContainer(port)) ?? (await listeningProcess(port));
  return { port, holder };
}

interface Resolved {
  networks?: Record<string, { name?: string; ipam?: { config?: { subnet?: string }[] } }>;
  volumes?: Record<string, { name?: string }>;
}

async function resolvedProject(project: Project): Promise<Resolved> {
  return parseResolved(await resolvedConfig(project, variable(project, 'PROD_TAG'))) as Resolved;
}

async function surveyNetworks(project: Project, resolved: Resolved): Promise<MigrationFacts['subnets']> {
  const networks = await engineNetworks();
  const own = Object.values(resolved.networks ?? {});
  const wanted = own.flatMap(({ ipam }) =>
    (ipam?.config ?? []).flatMap(({ subnet }) => (subnet ? [subnet] : [])),
  );
  const taken = networks.flatMap(({ subnets }) => subnets);
  const candidates = Array.from({ length: 14 }, (_none, index) => `172.${31 - index}.0.0/16`);
  const free = candidates.find((one) => !taken.some((subnet) => overlaps(one, subnet))) ?? '10.222.0.0/16';
  const isOwn = (labels: Record<string, string>) =>
    labels['com.docker.compose.project'] === project.project.name;
  const ownNetworks = [
    ...own.flatMap(({ name }) => name ?? []),
    ...networks.filter(({ labels }) => isOwn(labels)).map(({ name }) => name),
  ];
  return { wanted, free, ownNetworks, networks };
}

/** Everything, asked side by side where it can be. @throws TaskError when something cannot be read */
export async function surveyMigration(
  project: Project,
  description: LegacyDescription,
  legacy: Legacy,
): Promise<MigrationFacts> {
  const to = await resolvedPath(dataDirectory(project));
  const [resolved, engine, containers] = await Promise.all([
    resolvedProject(project),
    engineInfo(),
    engineContainers(),
  ]);
  const [data, subnets, models, health, entries, owner, dev, prod, image, own] = await Promise.all([
    surveyData(legacy),
    surveyNetworks(project, resolved),
    surveyModels(project, description, legacy, resolved),
    legacy.state === 'running'
      ? askHealth(`http://127.0.0.1:${legacy.ports[0]}${description.health}`)
      : undefined,
    readdir(to).then(
      (names) => names.length,
      () => undefined,
    ),
    ownerOf(to),
    surveyPort(project, legacy, 'dev'),
    surveyPort(project, legacy, 'prod'),
    inspectImage(legacy.image),
    projectContainers(project),
  ]);
  const network = subnets.networks.find(({ name }) => name === legacy.network?.name);
  const neighbours = (network?.containers ?? []).flatMap(
    (id) => containers.find((one) => one.id === id)?.name ?? id,
  );
  const deprecated = legacy.isRebuilt ? [] : legacy.composeFiles.map((file) => `${file}.deprecated`);
  const present = await Promise.all(deprecated.map(exists));
  return {
    now: new Date(),
    legacy,
    answered: health?.status === 200,
    healthPath: description.health,
    data,
    target: { path: to, entries, owner: owner ?? null },
    room: await Promise.all([
      roomAt('copy', to),
      roomAt('backup', backupDirectory(project)),
      ...((await exists(engine.dataRoot)) ? [roomAt('models', engine.dataRoot)] : []),
    ]),
    backups: backupDirectory(project),
    ports: { dev, prod },
    variables: {
      subnet: variableName(project, 'SUBNET'),
      data: variableName(project, 'DATA_DIR'),
      port: Object.fromEntries(
        ENVIRONMENTS.map((name) => [name, variableName(project, `${name.toUpperCase()}_PORT`)]),
      ) as Record<EnvironmentName, string>,
    },
    subnets,
    models,
    running: own.filter(({ state }) => state === 'running').map(({ name }) => name),
    neighbours: neighbours.filter((name) => name !== legacy.container),
    hasOldImage: image !== undefined,
    inTheWay: deprecated.filter((_path, index) => present[index]),
  };
}

// Looking at paths: where they really lead, whose they are, what room there is.

/** The path with all links resolved, also where its end does not exist yet. */
async function resolvedPath(path: string): Promise<string> {
  return realpath(path).catch(async () =>
    join(await resolvedPath(dirname(path)), path.slice(dirname(path).length)),
  );
}

async function ownerOf(path: string): Promise<Owner | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found && { uid: found.uid, gid: found.gid, mode: found.mode & 0o7777 };
}

/** The nearest folder that exists, and what is free there. */
async function roomAt(
  what: MigrationFacts['room'][number]['what'],
  place: string,
): Promise<MigrationFacts['room'][number]> {
  const found = await stat(place).catch(() => undefined);
  if (!found) return { ...(await roomAt(what, dirname(place))), place };
  const { bavail, bsize } = await statfs(place);
  return { what, place, filesystem: String(found.dev), free: bavail * bsize };
}

async function isMountPoint(path: string): Promise<boolean> {
  const table = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '');
  const points = table
    .split('\n')
    .map((line) =>
      line
        .split(' ')[4]
        ?.replace(/\\(\d{3})/g, (_all, code) => String.fromCharCode(Number.parseInt(code, 8))),
    );
  const [own, above] = await Promise.all([lstat(path), lstat(dirname(path))]);
  return points.includes(path) || own.dev !== above.dev;
}

async function surveyData(legacy: Legacy): Promise<MigrationFacts['data']> {
  const { path } = legacy.data;
  const sizes = await probe(['du', '-sk', path]);
  const owner = (await ownerOf(path))!;
  const self = process.getuid?.();
  const mayWrite = await access(dirname(path), constants.W_OK).then(
    () => true,
    () => false,
  );
  return {
    bytes: Number(sizes.stdout.split(/\s/)[0]) * 1024,
    owner,
    isMount: await isMountPoint(path),
    mayMove: self === undefined || self === 0 || (sizes.ok && owner.uid === self && mayWrite),
  };
}

export async function exists(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined;
}

// From what was found to what is understood of it. Pure: anything that the description in release.toml does
// not cover is a problem here, never a guess.

/** `registry/path/rag-mcp:latest` → `rag-mcp` */
function repository(reference: string): string {
  return (
    reference
      .replace(/@.*$/, '')
      .replace(/:[^/]*$/, '')
      .split('/')
      .at(-1) ?? ''
  );
}

function isData(description: LegacyDescription, { type, target }: Mount): boolean {
  return type === 'bind' && description.data_targets.includes(target);
}

function isModels(description: LegacyDescription, { type, source, target }: Mount): boolean {
  return (
    type === 'volume' &&
    (source.endsWith(description.models_volume_suffix) || description.models_targets.includes(target))
  );
}

function isService(description: LegacyDescription, { labels, mounts }: EngineContainer): boolean {
  const isNamed = labels['com.docker.compose.service'] === description.service;
  return isNamed || mounts.some((mount) => isData(description, mount));
}

/** Why a container looks like the older setup: service, image, data, models. Two reasons make one. */
function evidenceOf(description: LegacyDescription, container: EngineContainer): string[] {
  const { labels, image, mounts } = container;
  const suffix = description.models_volume_suffix;
  return [
    ...(labels['com.docker.compose.service'] === description.service
      ? [`service ${description.service}`]
      : []),
    ...(repository(image) === description.image ? [`image ${image}`] : []),
    ...mounts
      .filter(({ type, source }) => type === 'volume' && source.endsWith(suffix))
      .map(({ source }) => `volume ${source}`),
    ...mounts
      .filter((mount) => isData(description, mount))
      .map(({ source, target }) => `${source} on ${target}`),
  ];
}

/**
 * The containers that are the older setup: the service by its label or by its data, and one thing more. Others may
 * share its image or its models; those of the new project are not it, whatever they look like.
 */
export function legacyContainers(
  description: LegacyDescription,
  containers: readonly EngineContainer[],
  ownProject: string,
): EngineContainer[] {
  return containers.filter(
    (container) =>
      container.labels['com.docker.compose.project'] !== ownProject &&
      isService(description, container) &&
      evidenceOf(description, container).length >= 2,
  );
}

type Understood = Pick<Legacy, 'ports' | 'models' | 'readOnlyMounts'> & {
  data: string;
  network: string;
};

/** @returns what is understood, or every reason why it is not */
export function understand(description: LegacyDescription, shape: Shape): Understood | TaskError[] {
  const data = shape.mounts.filter((mount) => isData(description, mount));
  const models = shape.mounts.filter((mount) => isModels(description, mount));
  const others = shape.mounts.filter((mount) => !data.includes(mount) && !models.includes(mount));
  const problems = [
    ...dataProblems(description, data),
    ...others
      .filter(({ type, isReadOnly }) => !isReadOnly && type !== 'tmpfs')
      .map(({ type, source, target }) =>
        unknown(`it writes to the ${type} ${source || '(anonymous)'} on ${target}`),
      ),
    ...(models.length > 1 ? [unknown(`it has several models volumes: ${list(models)}`)] : []),
    ...(shape.ports.length === 0 ? [unknown('it publishes no port')] : []),
    ...(shape.networks.length > 1
      ? [unknown(`it is in several networks: ${shape.networks.join(', ')}`)]
      : []),
  ];
  if (problems.length > 0) return problems;
  return {
    ports: shape.ports,
    models: models[0]?.source,
    readOnlyMounts: others.filter(({ isReadOnly }) => isReadOnly).map(({ source }) => source),
    data: data[0]!.source,
    network: shape.networks[0] ?? '',
  };
}

function dataProblems(description: LegacyDescription, data: readonly Mount[]): TaskError[] {
  if (data.length === 1) return [];
  if (data.length > 1) return [unknown(`it has several data directories: ${list(data)}`)];
  return [unknown(`no directory of this machine is mounted on ${description.data_targets.join(' or ')}`)];
}

const list = (mounts: readonly Mount[]) => mounts.map(({ source }) => source).join(', ');

/** Something that this migration was not made for. */
function unknown(what: string): TaskError {
  return new TaskError(`Not understood: ${what}`, {
    code: 'unknown-shape',
    hint: 'nothing was changed; if the older setup really is so, describe it in [migrate] of configs/release.toml',
  });
}

// Running program/ in a container of the base image: without network, with the mounts that it needs and
// nothing else, under a label by which the next run finds what a killed one left.

const PROGRAM = join(TASKS_FOLDER, 'lib/migrate/program');

interface ContainerJob {
  command: 'inventory' | 'settle' | 'sample' | 'copy' | 'measure';
  options?: object;
  /** `--mount` values. */
  mounts: string[];
  /** `uid:gid`; default: root. */
  user?: string;
  /** Changes nothing: it runs also under --dry-run. */
  onlyLooks?: boolean;
}

export interface Inventory {
  databases: Record<string, Record<string, TableState>>;
  files: Record<string, string>;
}

export interface TableState {
  columns: string[];
  rows: number;
  recent: number;
  sha256: string;
}

function label(project: Project): string {
  return `release-flow.migrate=${project.project.name}`;
}

/** The image whose node runs the program. */
export function nodeImage(project: Project): string {
  return variable(project, 'BASE_IMAGE') ?? project.image.base_image ?? `${project.image.name}:latest`;
}

/** `uid:gid` that the new service's containers run as. */
export function containerUser(project: Project): string {
  return `${variable(project, 'UID') ?? 1000}:${variable(project, 'GID') ?? 1000}`;
}

/** Runs one command of the program; undefined under --dry-run. @throws CommandError with its words */
export async function runProgram<T>(project: Project, job: ContainerJob): Promise<T | undefined> {
  const argv = docker(
    'run',
    ...['--rm', '--interactive', '--init', '--network=none', '--read-only', '--tmpfs=/tmp'],
    `--label=${label(project)}`,
    `--user=${job.user ?? '0:0'}`,
    ...job.mounts.map((mount) => `--mount=${mount}`),
    `--mount=${bindMount(PROGRAM, '/program', 'readonly')}`,
    ...['--entrypoint=node', nodeImage(project), '--no-warnings', '/program/main.ts', job.command],
  );
  const output = await (job.onlyLooks ? read : run)(argv, { input: JSON.stringify(job.options ?? {}) });
  return session.dryRun && !job.onlyLooks ? undefined : (JSON.parse(output) as T);
}

/** Removes what a killed run left running. */
export async function removeLeftovers(project: Project): Promise<void> {
  const left = await containerIds({ label: [label(project)] });
  if (left.length > 0) await run(docker('rm', '--force', '--volumes', ...left));
}

/** A bind mount of the host, as `--mount` takes it. */
export function bindMount(source: string, target: string, access: 'readonly' | 'writable'): string {
  return `type=bind,"source=${source.replaceAll('"', '""')}",target=${target}${access === 'readonly' ? ',readonly' : ''}`;
}

export function volumeMount(volume: string, target: string, access: 'readonly' | 'writable'): string {
  return `type=volume,source=${volume},target=${target},volume-nocopy${access === 'readonly' ? ',readonly' : ''}`;
}

// What a migration is planned from: everything that survey.ts has found out, in one value.

export interface Owner {
  uid: number;
  gid: number;
  /** Permission bits. */
  mode: number;
}

export interface MigrationFacts {
  now: Date;
  legacy: Legacy;
  answered: boolean;
  healthPath: string;
  data: { bytes: number; owner: Owner; isMount: boolean; mayMove: boolean };
  /** Where the new data goes, links resolved. `entries`: undefined when nothing is there. */
  target: { path: string; entries: number | undefined; owner: Owner | null };
  /** Free bytes at each place that will be written to; places of one file system share an id. */
  room: { what: 'copy' | 'backup' | 'models'; place: string; filesystem: string; free: number }[];
  backups: string;
  ports: Record<EnvironmentName, { port: number; holder: string | undefined }>;
  /** Names of variables, for remedies. */
  variables: { subnet: string; data: string; port: Record<EnvironmentName, string> };
  subnets: { wanted: string[]; free: string; ownNetworks: string[]; networks: EngineNetwork[] };
  models: {
    wanted: string;
    exists: boolean;
    old: EngineVolume | undefined;
    canReuse: boolean;
    bytes: number | null;
    unreadable: number;
    users: string[];
  };
  /** Running containers of the new project. */
  running: string[];
  /** Running containers in the old network that are not the old service. */
  neighbours: string[];
  hasOldImage: boolean;
  /** Paths that must not be there yet, but are. */
  inTheWay: string[];
}

// A compose file made from a container whose own is gone, so that the container can be brought back. JSON is
// YAML, too. Pure.

const labelNamed = (labels: Record<string, string>, name: string) => labels[`com.docker.compose.${name}`];

/** `imageEnvironment`: what the image sets by itself and the file need not say. */
export function rebuildCompose(
  container: EngineContainer,
  network: EngineNetwork | undefined,
  image: { environment: readonly string[]; command: string[] | null; entrypoint: string[] | null },
): string {
  const project = labelNamed(container.labels, 'project') ?? 'legacy';
  const service = labelNamed(container.labels, 'service') ?? 'legacy';
  const same = (a: string[] | null, b: string[] | null) =>
    JSON.stringify(a ?? []) === JSON.stringify(b ?? []);
  const isDefaultName = container.name === `${project}-${service}-1`;
  const volumes = container.mounts.filter(({ type }) => type === 'volume').map(({ source }) => source);
  const key = network && (labelNamed(network.labels, 'network') ?? 'default');
  const file = {
    name: project,
    services: {
      [service]: {
        image: container.image,
        ...(isDefaultName ? {} : { container_name: container.name }),
        environment: container.environment.filter((line) => !image.environment.includes(line)),
        ports: container.ports.map(
          ({ host, container: target, address }) =>
            `${address.includes(':') ? `[${address}]:` : address ? `${address}:` : ''}${host}:${target}`,
        ),
        volumes: container.mounts.map(({ type, source, target, isReadOnly }) => ({
          type,
          source,
          target,
          read_only: isReadOnly,
        })),
        restart: container.restart,
        ...(key ? { networks: [key] } : {}),
        ...(container.user ? { user: container.user } : {}),
        ...(same(container.command, image.command) ? {} : { command: container.command }),
        ...(same(container.entrypoint, image.entrypoint) ? {} : { entrypoint: container.entrypoint }),
        ...(container.memory > 0 ? { mem_limit: container.memory } : {}),
        ...(container.nanoCpus > 0 ? { cpus: container.nanoCpus / 1e9 } : {}),
      },
    },
    volumes: Object.fromEntries(volumes.map((name) => [name, { name, external: true }])),
    networks: network && key ? { [key]: networkEntry(network) } : {},
  };
  return `${JSON.stringify(file, null, 2).replaceAll('$', '$$$$')}\n`;
}

function networkEntry({ name, driver, subnets, gateways, labels }: EngineNetwork): object {
  // A network that compose did not make for this project is not compose's to remove.
  if (!labelNamed(labels, 'project')) return { name, external: true };
  const config = subnets.map((subnet, index) => ({
    subnet,
    ...(gateways[index] ? { gateway: gateways[index] } : {}),
  }));
  return { name, driver, ipam: { config } };
}

// The file that stands for a compose file that is gone: made from the container, kept with our bookkeeping.

/** Writes it (0600: it has the container's variables) and returns its path; bookkeeping, so also in a dry run. */
export async function writeRebuilt(project: Project, container: EngineContainer): Promise<string> {
  const path = statePath(project.root, 'rebuilt-compose.json');
  const networks = await engineNetworks();
  const network = networks.find(({ name }) => container.networks.includes(name));
  const answer = await probe(docker('image', 'inspect', '--format', '{{json .Config}}', container.imageId));
  const config = answer.ok ? (JSON.parse(answer.stdout) as Record<string, string[] | null>) : {};
  const text = rebuildCompose(container, network, {
    environment: config.Env ?? [],
    command: config.Cmd ?? null,
    entrypoint: config.Entrypoint ?? null,
  });
  if ((await readIfPresent(path)) !== text) {
    await ensureStateDirectory(project.root);
    await replaceFile(path, text, { mode: 0o600 });
  }
  return path;
}

// The models volume: used as it is where the engine and compose allow it, else copied inside a container and
// compared file by file. Nothing is ever downloaded again.

interface CopiedFile {
  path: string;
  size: number;
  sha256: string;
}

export async function surveyModels(
  project: Project,
  description: LegacyDescription,
  legacy: Legacy,
  resolved: { volumes?: Record<string, { name?: string }> },
): Promise<MigrationFacts['models']> {
  const key = description.models_volume;
  const wanted = resolved.volumes?.[key]?.name ?? `${project.project.name}_${key}`;
  const old = legacy.models === undefined ? undefined : await engineVolume(legacy.models);
  const users = (await engineContainers())
    .filter(
      ({ mounts, name }) => name !== legacy.container && mounts.some(({ source }) => source === old?.name),
    )
    .map(({ name }) => name);
  const content =
    old && (await inspectImage(nodeImage(project))) ? await measure(project, old.name) : undefined;
  return {
    wanted,
    exists: (await engineVolume(wanted)) !== undefined,
    old,
    canReuse: description.models_variable !== undefined && resolved.volumes?.[key] !== undefined,
    bytes: content?.bytes ?? null,
    unreadable: content?.unreadable.length ?? 0,
    users,
  };
}

/** Sizes, and what the new containers' user may not read. Only looks: also in a dry run. */
async function measure(project: Project, volume: string) {
  const user = containerUser(project);
  const mounts = [volumeMount(volume, '/from', 'readonly')];
  return runProgram<{ bytes: number; unreadable: string[] }>(project, {
    command: 'measure',
    mounts,
    user,
    onlyLooks: true,
  });
}

/** Labels by which compose takes a volume for its own. */
function ownLabels(project: Project, key: string): string[] {
  return [`com.docker.compose.project=${project.project.name}`, `com.docker.compose.volume=${key}`];
}

/** Copies the volume; what is there already and the same is left alone. Returns what was proven equal. */
export async function copyModels(project: Project, key: string, plan: ModelsPlan): Promise<CopiedFile[]> {
  if (!(await engineVolume(plan.to))) {
    const labels = ownLabels(project, key).map((label) => `--label=${label}`);
    await run(docker('volume', 'create', ...labels, plan.to));
  }
  const owner = {
    uid: Number(variable(project, 'UID') ?? 1000),
    gid: Number(variable(project, 'GID') ?? 1000),
  };
  const mounts = [volumeMount(plan.from, '/from', 'readonly'), volumeMount(plan.to, '/to', 'writable')];
  return (await runProgram<CopiedFile[]>(project, { command: 'copy', options: { owner }, mounts })) ?? [];
}

/** Removes a volume if it is there and nobody uses it; returns what keeps it. */
export async function removeVolume(name: string): Promise<string[]> {
  if (!(await engineVolume(name))) return [];
  const users = (await engineContainers()).filter(({ mounts }) =>
    mounts.some(({ source }) => source === name),
  );
  if (users.length === 0) await run(docker('volume', 'rm', name));
  return users.map((container) => container.name);
}

export interface ModelsPlan {
  by: 'none' | 'reuse' | 'copy';
  from: string;
  to: string;
  reason: string;
  bytes: number | null;
  /** The volume it is copied to was there before. */
  existed: boolean;
  /** Containers beside the old service that use it. */
  users: string[];
}
