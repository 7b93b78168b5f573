// From what is found to what is to be done: every path and name, and everything that can be known to fail, with its
// remedy, before anything is touched.

import { access, constants, readdir, realpath, stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { backupDirectory } from '../backup/places.ts';
import { probe } from '../command.ts';
import { type ResolvedModel, resolvedModel } from '../docker/compose.ts';
import { engineEndpoint, engineInfo, isLocalEndpoint } from '../docker/engine.ts';
import { queryHealth } from '../docker/health.ts';
import { overlaps } from '../docker/network.ts';
import {
  inspectContainers,
  inspectImage,
  inspectVolume,
  listNetworks,
  projectContainers,
  type Volume,
} from '../docker/objects.ts';
import { combinedError, TaskError, usageError } from '../errors.ts';
import { formatBytes } from '../format.ts';
import { workTree } from '../git.ts';
import {
  dataDirectory,
  ENVIRONMENTS,
  type EnvironmentName,
  type Project,
  portOf,
  variable,
  variableName,
} from '../project.ts';
import type { LegacyDescription } from '../project-schema.ts';
import { workTreeProblems } from '../release/preflight.ts';
import { isFree, listeningProcess, publishingContainer } from '../switch/checks.ts';
import { allContainers, type Legacy } from './detect.ts';
import { exists, untrackedPaths } from './kept.ts';
import { measureVolume } from './verify.ts';

export const planSchema = z.strictObject({
  data: z.strictObject({
    /** Where the old service has its data; links resolved. */
    from: z.string(),
    /** Where the new one will have it. */
    to: z.string(),
    /** The copy while it is made, and the one that is only tried with. */
    copy: z.string(),
    rehearsal: z.string(),
    /** Where the old data waits untouched; null: it stays where it is. */
    aside: z.string().nullable(),
    /** Where what the new service wrote goes at a rollback. */
    kept: z.string(),
    bytes: z.number(),
  }),
  compose: z.array(z.strictObject({ path: z.string(), deprecated: z.string() })),
  models: z.strictObject({
    by: z.enum(['none', 'reuse', 'copy']),
    from: z.string(),
    to: z.string(),
    reason: z.string(),
    bytes: z.number().nullable(),
    /** The volume that it is copied to was there before. */
    existed: z.boolean(),
    /** Containers beside the old service that use it. */
    users: z.array(z.string()),
  }),
  ports: z.strictObject({ dev: z.number(), prod: z.number() }),
  /** The environment that takes over the old port: clients wait for this one. */
  first: z.enum(ENVIRONMENTS),
  /** The old service answered before. */
  answered: z.boolean(),
  oldUrl: z.string(),
});

export type MigrationPlan = z.output<typeof planSchema>;

/** @throws TaskError (exit 2) if release.toml describes no older setup */
export function describedLegacy(project: Project): LegacyDescription {
  if (project.migrate) return project.migrate;
  throw usageError('configs/release.toml has no [migrate]: it describes no older setup', {
    code: 'config-invalid',
  });
}

/** @throws TaskError with every problem found; nothing was changed then */
export async function planMigration(
  project: Project,
  description: LegacyDescription,
  legacy: Legacy,
  id: string,
): Promise<MigrationPlan> {
  await verifyLocalEngine();
  const resolved = await resolvedModel(project, variable(project, 'PROD_TAG'));
  const [from, to] = [legacy.data.path, await resolvedPath(dataDirectory(project))];
  const sizes = await probe(['du', '-sk', from]);
  const oldUrl = `http://127.0.0.1:${legacy.ports[0]}${description.health}`;
  const plan: MigrationPlan = {
    data: {
      ...{ from, to, copy: `${to}.migrating`, rehearsal: `${to}.rehearsal`, kept: `${to}.migrated-${id}` },
      aside: from === to ? `${from}.before-migration-${id}` : null,
      bytes: Number(sizes.stdout.split(/\s/)[0]) * 1024,
    },
    compose: legacy.composeFiles.map((path) => ({ path, deprecated: `${path}.deprecated` })),
    models: await planModels(project, description, legacy, resolved),
    ports: { dev: portOf(project, 'dev'), prod: portOf(project, 'prod') },
    first: legacy.ports.includes(portOf(project, 'dev')) ? 'dev' : 'prod',
    answered: legacy.state === 'running' && (await queryHealth(oldUrl)).status === 200,
    oldUrl,
  };
  const problems = await Promise.all([
    dataProblems(project, plan, sizes.ok),
    spaceProblems(project, plan),
    ...ENVIRONMENTS.map((name) => portProblems(project, legacy, name)),
    subnetProblems(project, legacy, resolved),
    otherProblems(project, legacy),
    treeProblems(project, description, legacy, plan),
  ]);
  if (problems.flat().length > 0)
    throw combinedError('Cannot migrate; nothing was changed:', problems.flat());
  return plan;
}

const problemIf = (isSo: unknown, message: string, code: string, hint: string) =>
  isSo ? [new TaskError(message, { code, hint })] : [];

async function verifyLocalEngine(): Promise<void> {
  const endpoint = await engineEndpoint();
  if (isLocalEndpoint(endpoint)) return;
  throw new TaskError(
    `Cannot migrate: docker uses the engine at ${endpoint}, but the data is on this machine`,
    { code: 'remote-engine', hint: 'run it on the machine of the old service: docker context use default' },
  );
}

async function planModels(
  project: Project,
  description: LegacyDescription,
  legacy: Legacy,
  { volumes }: ResolvedModel,
): Promise<MigrationPlan['models']> {
  const key = description.models_volume;
  const wanted = volumes?.[key]?.name ?? `${project.project.name}_${key}`;
  const old = legacy.models === null ? undefined : await inspectVolume(legacy.models);
  const base = { from: old?.name ?? '', to: wanted, bytes: null, users: [], existed: false };
  if (!old) return { ...base, by: 'none', reason: 'the old service has no models volume' };
  if (old.name === wanted) return { ...base, by: 'reuse', reason: 'the new service uses the same volume' };
  const users = (await allContainers())
    .filter(
      ({ mounts, name }) => name !== legacy.container && mounts.some(({ source }) => source === old.name),
    )
    .map(({ name }) => name);
  const content = await measureVolume(project, old.name);
  const canReuse = description.models_variable !== undefined && volumes?.[key] !== undefined;
  const why = whyCopied(old, canReuse, content?.unreadable ?? 0);
  const reason = why ?? 'the new service can use it';
  const found = { bytes: content?.bytes ?? null, users, reason };
  if (!why) return { ...base, ...found, by: 'reuse', to: old.name };
  return { ...base, ...found, by: 'copy', existed: (await inspectVolume(wanted)) !== undefined };
}

/** Why a models volume cannot be used as it is; undefined: it can. Pure. */
export function whyCopied(old: Volume, canReuse: boolean, unreadable: number): string | undefined {
  if (!canReuse) return 'the new compose file cannot name another volume';
  if (old.driver !== 'local') return `its driver is ${old.driver}`;
  if (old.labels['com.docker.compose.config-hash']) return 'compose would recreate it for another project';
  return unreadable > 0 ? `the new containers' user may not read ${unreadable} of its files` : undefined;
}

/** The path with all links resolved, also where its end does not exist yet. */
async function resolvedPath(path: string): Promise<string> {
  return realpath(path).catch(async () =>
    join(await resolvedPath(dirname(path)), path.slice(dirname(path).length)),
  );
}

async function dataProblems(
  project: Project,
  { data, compose }: MigrationPlan,
  isReadable: boolean,
): Promise<TaskError[]> {
  const { from, to, aside } = data;
  const choose = `choose another place for the new data: ${variableName(project, 'DATA_DIR')}=… in .env`;
  const [own, above] = await Promise.all([stat(from), stat(dirname(from))]);
  const self = process.getuid?.();
  const mayWrite = await access(dirname(from), constants.W_OK).then(
    () => true,
    () => false,
  );
  const mayMove = self === 0 || (isReadable && own.uid === self && mayWrite);
  const isMount = aside && own.dev !== above.dev;
  const entries = aside ? [] : await readdir(to).catch(() => []);
  const leftovers: TaskError[] = [];
  for (const { deprecated: path } of compose)
    if (await exists(path))
      leftovers.push(...problemIf(true, `${path} is in the way`, 'in-the-way', `mv ${path} ${path}.old`));
  return [
    ...problemIf(isMount, `${from} is a mount point and cannot be renamed`, 'data-mount', choose),
    ...problemIf(
      !mayMove,
      `This user may not read and move all of ${from}`,
      'data-directory',
      'run it with sudo',
    ),
    ...problemIf(
      entries.length > 0,
      `There is data already at ${to}, where the new data would go`,
      'data-exists',
      choose,
    ),
    ...leftovers,
  ];
}

/** Two copies of the data: the one that the new service works on, and the archive. */
async function spaceProblems(project: Project, { data, models }: MigrationPlan): Promise<TaskError[]> {
  const { dataRoot } = await engineInfo();
  const needs = [
    { what: 'copy', place: data.to, bytes: data.bytes },
    { what: 'backup', place: backupDirectory(project), bytes: data.bytes },
    ...(models.by === 'copy' && (await exists(dataRoot))
      ? [{ what: 'models', place: dataRoot, bytes: models.bytes ?? 0 }]
      : []),
  ];
  const spaces = await Promise.all(needs.map(async (need) => ({ ...need, ...(await spaceAt(need.place)) })));
  return [...new Set(spaces.map(({ device }) => device))].flatMap((device) => {
    const here = spaces.filter((space) => space.device === device);
    const free = Math.min(...here.map((space) => space.free));
    const parts = here.map(({ what, place, bytes }) => `${formatBytes(bytes)} for the ${what} at ${place}`);
    const needed = here.reduce((sum, { bytes }) => sum + bytes, 0);
    const message = `Not enough space: ${formatBytes(free)} free, needed ${parts.join(', ')}`;
    const hint = `free some space; ${variableName(project, 'BACKUP_DIR')}=… in .env puts backups on another disk`;
    return problemIf(free < needed, message, 'disk-full', hint);
  });
}

/** Of the nearest folder that exists. */
async function spaceAt(place: string): Promise<{ device: number; free: number }> {
  const found = await stat(place).catch(() => undefined);
  if (!found) return spaceAt(dirname(place));
  const { bavail, bsize } = await statfs(place);
  return { device: found.dev, free: bavail * bsize };
}

async function portProblems(project: Project, legacy: Legacy, name: EnvironmentName): Promise<TaskError[]> {
  const port = portOf(project, name);
  const isOld = legacy.state === 'running' && legacy.ports.includes(port);
  if (isOld || (await isFree({ published: port, target: 0, address: '' }))) return [];
  const holder = (await publishingContainer(port)) ?? (await listeningProcess(port));
  const hint = `stop it, or choose another: ${variableName(project, `${name.toUpperCase()}_PORT`)}=… in .env`;
  return problemIf(true, `Port ${port}, which ${name} needs, is taken by ${holder}`, 'port-taken', hint);
}

async function subnetProblems(
  project: Project,
  legacy: Legacy,
  resolved: ResolvedModel,
): Promise<TaskError[]> {
  const networks = await listNetworks();
  const own = Object.values(resolved.networks ?? {});
  const isOurs = ({ name, labels }: (typeof networks)[number]) =>
    name === legacy.network ||
    labels['com.docker.compose.project'] === project.project.name ||
    own.some((one) => one.name === name);
  const isTaken = (subnet: string) =>
    networks.some(({ subnets }) => subnets.some((one) => overlaps(subnet, one)));
  const candidates = Array.from({ length: 14 }, (_none, index) => `172.${31 - index}.0.0/16`);
  const free = candidates.find((one) => !isTaken(one)) ?? '10.222.0.0/16';
  const wanted = own.flatMap(({ ipam }) => (ipam?.config ?? []).flatMap(({ subnet }) => subnet ?? []));
  return wanted.flatMap((subnet) =>
    networks
      .filter((one) => !isOurs(one) && one.subnets.some((other) => overlaps(subnet, other)))
      .map(({ name, labels, subnets }) => {
        const owner = labels['com.docker.compose.project'];
        const whose = `${name}${owner ? ` of the project ${owner}` : ''}`;
        const hint = `give the new one another subnet: ${variableName(project, 'SUBNET')}=${free} in .env\nor remove the other one, if nothing needs it: docker network rm ${name}`;
        const message = `The new network needs ${subnet}, but the network ${whose} has ${subnets[0]}`;
        return new TaskError(message, { code: 'subnet-taken', hint });
      }),
  );
}

async function otherProblems(project: Project, legacy: Legacy): Promise<TaskError[]> {
  const { network, image, directory, container } = legacy;
  const own = (await projectContainers(project)).filter(({ state }) => state === 'running');
  const inNetwork = (await listNetworks()).find(({ name }) => name === network)?.containers ?? [];
  const neighbours = (await inspectContainers(inNetwork)).filter(({ name }) => name !== container);
  const names = (containers: readonly { name: string }[]) => containers.map(({ name }) => name).join(', ');
  const running = `The new service is already running: ${names(own)}`;
  const shared = `Other containers use the network ${network}, which is removed with the old service: ${names(neighbours)}`;
  const disconnect = `docker network disconnect ${network} ${neighbours[0]?.name}`;
  const imageGone = `The image ${image} of the old service is missing: a rollback needs it`;
  return [
    ...problemIf(own.length > 0, running, 'already-running', 'stop it first: npm run switch -- none'),
    ...problemIf(neighbours.length > 0, shared, 'network-in-use', disconnect),
    ...problemIf(
      !(await inspectImage(image)),
      imageGone,
      'image-missing',
      `build or pull it first, in ${directory}`,
    ),
  ];
}

/** Every path of the older setup that may lie in this repository. */
export function oldPaths(legacy: Legacy, compose: MigrationPlan['compose'], configs: readonly string[]) {
  return [
    ...compose.flatMap(({ path, deprecated }) => [path, deprecated]),
    ...configs.map((file) => join(legacy.directory, file)),
  ];
}

/** The repository must be fit for a release, and for a commit of what changes; the old files do not count. */
async function treeProblems(
  project: Project,
  { config_files }: LegacyDescription,
  legacy: Legacy,
  { compose }: MigrationPlan,
): Promise<TaskError[]> {
  const tree = await workTree(project.root);
  const old = await untrackedPaths(project, oldPaths(legacy, compose, config_files));
  const isOld = (path: string) =>
    old.some((one) => one === path || (path.endsWith('/') && one.startsWith(path)));
  const changes = tree.changes.filter((path) => !isOld(path));
  return workTreeProblems(project, { ...tree, changes }).map(({ message, code, hint }) => {
    const text = message.replace('Cannot release', 'Cannot commit the new settings');
    return new TaskError(text, { code, hint });
  });
}
