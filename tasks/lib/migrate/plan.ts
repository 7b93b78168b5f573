// From what is found to what is to be done: every path and name, and everything that can be known to fail, with its
// remedy, before anything is touched.
import { readdir, realpath, stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { backupDirectory, verifyDirectories } from '../backup/places.ts';
import { probe } from '../command.ts';
import { CONFIG_HASH_LABEL, parseServices, type ResolvedModel, resolvedModel } from '../docker/compose.ts';
import { engineEndpoint, engineInfo, isLocalEndpoint } from '../docker/engine.ts';
import { queryHealth } from '../docker/health.ts';
import { overlaps } from '../docker/network.ts';
import {
  inspectImage,
  inspectVolume,
  listNetworks,
  projectContainers,
  type Volume,
} from '../docker/objects.ts';
import { combinedError, TaskError } from '../errors.ts';
import { formatBytes } from '../format.ts';
import { workTree } from '../git.ts';
import { dataDirectory, ENVIRONMENTS, type Project, portOf, variable, variableName } from '../project.ts';
import { workTreeProblems } from '../release/preflight.ts';
import { observeEngine } from '../setup/engine.ts';
import { planMachine } from '../setup/setup.ts';
import { describeSteps } from '../steps.ts';
import { portProblems } from '../switch/checks.ts';
import {
  allContainers,
  describedLegacy,
  detectLegacy,
  exists,
  type Legacy,
  legacySchema,
  projectOf,
} from './detect.ts';
import { openingProblems, planSettings, settingSchema } from './settings.ts';
import { comparisonSchema, measureVolume } from './verify.ts';

/** What was planned, and what the steps found out. */
export const migrationSchema = z.strictObject({
  /** Distinguishes what this migration sets aside from what another one did: its time, `20260131-235959`. */
  id: z.string(),
  legacy: legacySchema,
  data: z.strictObject({
    /** Where the old service has its data, and where the new one will have it; links resolved. */
    from: z.string(),
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
  /** Null: the old service has no models volume. */
  models: z
    .strictObject({
      from: z.string(),
      to: z.string(),
      /** Why it is copied; null: it is used as it is. */
      copied: z.string().nullable(),
      bytes: z.number(),
    })
    .nullable(),
  settings: z.array(settingSchema),
  config: z.strictObject({ path: z.string(), before: z.string(), after: z.string() }).nullable(),
  ports: z.strictObject({ dev: z.number(), prod: z.number() }),
  /** The environment that takes over the old port: clients wait for this one. */
  first: z.enum(ENVIRONMENTS),
  /** The old service answered here before. */
  oldUrl: z.string(),
  answered: z.boolean(),
  rollsBack: z.boolean(),
  /** The release that prod runs. */
  tag: z.string().optional(),
  /** ISO 8601: from then on nobody but the new service's clients can have written. */
  stoppedAt: z.string().optional(),
  backup: z.strictObject({ archive: z.string(), seconds: z.number() }).optional(),
  downtimeSeconds: z.number().optional(),
  /** The new service ran: its data may hold what is nowhere else. */
  hasStarted: z.boolean(),
  verified: comparisonSchema.optional(),
  /** Facts that were read through each environment. */
  readable: z.partialRecord(z.enum(ENVIRONMENTS), z.number()),
  commit: z.string().nullable(),
});

export type Migration = z.output<typeof migrationSchema>;

/** What a compose file of the older setup is called after the migration. */
export const deprecated = (path: string) => `${path}.deprecated`;

/**
 * The whole plan; undefined if there is no older setup.
 * @throws TaskError with every problem found; nothing was changed then
 */
export async function planMigration(project: Project): Promise<Migration | undefined> {
  const found = await detectLegacy(project);
  if (!found) return undefined;
  const { legacy, variables } = found;
  verifyDirectories(project);
  const model = await resolvedModel(project, variable(project, 'PROD_TAG'));
  const { settings, config, ...written } = await planSettings(project, legacy, variables);
  const oldUrl = `http://127.0.0.1:${legacy.ports[0]}${describedLegacy(project).health}`;
  const id = new Date().toISOString().replace(/\D/g, '').slice(0, 14).replace(/^.{8}/, '$&-');
  const plan: Migration = {
    ...{ id, legacy, config, oldUrl, rollsBack: false, hasStarted: false, readable: {}, commit: null },
    data: await planData(project, legacy, id),
    models: await planModels(project, legacy, model),
    settings: settings.map((one) => (one.isSecret ? { ...one, value: '***' } : one)),
    ports: { dev: portOf(project, 'dev'), prod: portOf(project, 'prod') },
    first: legacy.ports.includes(portOf(project, 'dev')) ? 'dev' : 'prod',
    answered: legacy.isRunning && (await queryHealth(oldUrl)).status === 200,
  };
  const problems = await Promise.all([
    engineProblems(project, legacy),
    workTreeProblems(project, await workTree(project.root)),
    setupProblems(project),
    openingProblems(project, legacy, written),
    dataProblems(project, plan),
    spaceProblems(project, plan),
    takenPorts(project, legacy, model),
    networkProblems(project, legacy, model),
  ]);
  if (problems.flat().length > 0)
    throw combinedError('Cannot migrate; nothing was changed:', problems.flat());
  return plan;
}

async function planData(project: Project, { data: from }: Legacy, id: string): Promise<Migration['data']> {
  const to = await resolvedPath(dataDirectory(project));
  const sizes = await probe(['du', '-sk', from]);
  return {
    ...{ from, to, copy: `${to}.migrating`, rehearsal: `${to}.rehearsal`, kept: `${to}.migrated-${id}` },
    aside: from === to ? `${from}.before-migration-${id}` : null,
    bytes: sizes.ok ? Number(sizes.stdout.split(/\s/)[0]) * 1024 : Number.NaN,
  };
}

/** The path with all links resolved, also where its end does not exist yet. */
async function resolvedPath(path: string): Promise<string> {
  return realpath(path).catch(async () =>
    join(await resolvedPath(dirname(path)), path.slice(dirname(path).length)),
  );
}

async function planModels(
  project: Project,
  legacy: Legacy,
  model: ResolvedModel,
): Promise<Migration['models']> {
  const { models_volume: key, models_variable } = describedLegacy(project);
  const volume = model.volumes?.[key];
  const old = legacy.models === null ? undefined : await inspectVolume(legacy.models);
  if (!old) return null;
  const { bytes, unreadable } = await measureVolume(project, old.name);
  const wanted = volume?.name ?? `${project.project.name}_${key}`;
  const canReuse = models_variable !== undefined && volume !== undefined;
  const copied = wanted === old.name ? null : whyCopied(old, canReuse, unreadable);
  return { from: old.name, to: copied ? wanted : old.name, copied, bytes };
}

/** Why a models volume cannot be used as it is; null: it can. Pure. */
export function whyCopied(old: Volume, canReuse: boolean, unreadable: number): string | null {
  if (!canReuse) return 'the new compose file cannot name another volume';
  if (old.driver !== 'local') return `its driver is ${old.driver}`;
  if (old.labels[CONFIG_HASH_LABEL]) return 'compose would recreate it for another project';
  return unreadable > 0 ? `the new containers' user may not read ${unreadable} of its files` : null;
}

// What stands in the way.

const problem = (code: string, message: string, hint: string) => new TaskError(message, { code, hint });

async function engineProblems(project: Project, { image, directory }: Legacy): Promise<TaskError[]> {
  const endpoint = await engineEndpoint();
  const running = (await projectContainers(project)).filter(({ state }) => state === 'running');
  const found: TaskError[] = [];
  if (!isLocalEndpoint(endpoint)) {
    const message = `docker uses the engine at ${endpoint}, but the data is on this machine`;
    found.push(problem('remote-engine', message, 'docker context use default'));
  }
  if (running.length > 0) {
    const message = `The new service is already running: ${running.map(({ name }) => name).join(', ')}`;
    found.push(problem('already-running', message, 'stop it first: npm run switch -- none'));
  }
  if (!(await inspectImage(image))) {
    const message = `The image ${image} of the old service is missing: a rollback needs it`;
    found.push(problem('image-missing', message, `build or pull it first, in ${directory}`));
  }
  return found;
}

async function setupProblems(project: Project): Promise<TaskError[]> {
  const missing = await planMachine(project, await observeEngine());
  if (missing.length === 0) return [];
  const message = `This machine is not set up: ${describeSteps(missing).join('; ')}`;
  return [problem('not-set-up', message, 'npm run setup')];
}

async function dataProblems(project: Project, { data, legacy }: Migration): Promise<TaskError[]> {
  const { from, to, aside } = data;
  const choose = `choose another place for the new data: ${variableName(project, 'DATA_DIR')}=… in .env`;
  const found: TaskError[] = [];
  const self = process.getuid?.();
  if (self !== 0 && (Number.isNaN(data.bytes) || (await stat(from)).uid !== self))
    found.push(problem('data-directory', `This user may not read and move ${from}`, 'run it with sudo'));
  if (aside && (await stat(from)).dev !== (await stat(dirname(from))).dev)
    found.push(problem('data-mount', `${from} is a mount point and cannot be renamed`, choose));
  if (!aside && (await readdir(to).catch(() => [])).length > 0)
    found.push(problem('data-exists', `There is data already at ${to}, where the new data would go`, choose));
  for (const path of legacy.composeFiles.map(deprecated))
    if (await exists(path))
      found.push(problem('in-the-way', `${path} is in the way`, `mv ${path} ${path}.old`));
  return found;
}

/** Two copies of the data: the one that the new service works on, and the archive. */
async function spaceProblems(project: Project, { data, models }: Migration): Promise<TaskError[]> {
  const needs = [
    { what: 'copy', place: data.to, bytes: data.bytes },
    { what: 'backup', place: backupDirectory(project), bytes: data.bytes },
    { what: 'models', place: (await engineInfo()).dataRoot, bytes: models?.copied ? models.bytes : 0 },
  ].filter(({ bytes }) => bytes > 0);
  const spaces = await Promise.all(needs.map(async (need) => ({ ...need, ...(await spaceAt(need.place)) })));
  const found: TaskError[] = [];
  for (const device of new Set(spaces.map((one) => one.device))) {
    const here = spaces.filter((space) => space.device === device);
    const free = Math.min(...here.map((space) => space.free));
    if (free >= here.reduce((sum, { bytes }) => sum + bytes, 0)) continue;
    const parts = here.map(({ what, place, bytes }) => `${formatBytes(bytes)} for the ${what} at ${place}`);
    const message = `Not enough space: ${formatBytes(free)} free, needed ${parts.join(', ')}`;
    const hint = `free some space; ${variableName(project, 'BACKUP_DIR')}=… in .env puts backups on another disk`;
    found.push(problem('disk-full', message, hint));
  }
  return found;
}

/** Of the nearest folder that exists. */
async function spaceAt(place: string): Promise<{ device: number; free: number }> {
  const found = await stat(place).catch(() => undefined);
  if (!found) return spaceAt(dirname(place));
  const { bavail, bsize } = await statfs(place);
  return { device: found.dev, free: bavail * bsize };
}

/** The old service gives its own up. */
async function takenPorts(project: Project, legacy: Legacy, model: ResolvedModel): Promise<TaskError[]> {
  const services = parseServices(model);
  const engine = { containers: [], endpoint: await engineEndpoint() };
  const found = ENVIRONMENTS.map(async (name) => {
    if (legacy.isRunning && legacy.ports.includes(portOf(project, name))) return [];
    return portProblems(project, engine, name, services[project.environments[name].service]!);
  });
  return (await Promise.all(found)).flat();
}

/** The old networks go with the old service, and the new one needs its subnet. */
async function networkProblems(project: Project, legacy: Legacy, model: ResolvedModel): Promise<TaskError[]> {
  const planned = Object.values(model.networks ?? {});
  const networks = await listNetworks();
  const old = networks.filter((one) => projectOf(one) === legacy.project);
  const found: TaskError[] = [];
  for (const { name, networks: joined } of await allContainers()) {
    const network = old.find((one) => joined.includes(one.name))?.name;
    if (!network || name === legacy.container) continue;
    const message = `The container ${name} uses the network ${network}, which is removed with the old service`;
    found.push(problem('network-in-use', message, `docker network disconnect ${network} ${name}`));
  }
  const isOurs = (one: { name: string; labels: Record<string, string> }) =>
    [legacy.project, project.project.name].includes(projectOf(one) ?? '') ||
    planned.some(({ name }) => name === one.name);
  const wanted = planned.flatMap(({ ipam }) => (ipam?.config ?? []).flatMap(({ subnet }) => subnet ?? []));
  for (const one of networks.filter((other) => !isOurs(other))) {
    const subnet = wanted.find((wish) => one.subnets.some((other) => overlaps(wish, other)));
    if (!subnet) continue;
    const whose = projectOf(one) ? ` of the project ${projectOf(one)}` : '';
    const message = `The new network needs ${subnet}, but the network ${one.name}${whose} has ${one.subnets[0]}`;
    const hint = `give the new one another subnet: ${variableName(project, 'SUBNET')}=… in .env, or: docker network rm ${one.name}`;
    found.push(problem('subnet-taken', message, hint));
  }
  return found;
}
