// Is everything there that was there? Every table of every database, every other file, and old facts through a running
// environment. What lies in the data and in volumes is read by a program in a container of the base image.

import { join } from 'node:path';
import { z } from 'zod';
import { read, run } from '../command.ts';
import { docker } from '../docker/engine.ts';
import { containerIds, inspectImage } from '../docker/objects.ts';
import { TaskError } from '../errors.ts';
import { request } from '../http.ts';
import { type EnvironmentName, type Project, TASKS_FOLDER, variable } from '../project.ts';
import type { LegacyDescription } from '../project-schema.ts';

const tableSchema = z.object({
  columns: z.array(z.string()),
  rows: z.number(),
  /** Those that hold a time after the old service stopped: they are left out of the hash. */
  recent: z.number(),
  sha256: z.string(),
});

export const inventorySchema = z.object({
  /** Database → table → its content. */
  databases: z.record(z.string(), z.record(z.string(), tableSchema)),
  /** Everything else: `size:sha256`, or the target of a link. */
  files: z.record(z.string(), z.string()),
});

type Inventory = z.output<typeof inventorySchema>;
type Tables = Inventory['databases'][string];

export const comparisonSchema = z.strictObject({
  databases: z.number(),
  tables: z.number(),
  rows: z.number(),
  files: z.number(),
  /** Tables that clients have written to since the new service started. */
  written: z.array(z.string()),
});

type Comparison = z.output<typeof comparisonSchema> & { problems: string[] };

/** `pruned`: databases of which the new service removes what is old. Pure. */
export function compareInventories(
  before: Inventory,
  after: Inventory,
  pruned: readonly string[] = [],
): Comparison {
  const result: Comparison = { databases: 0, tables: 0, rows: 0, files: 0, written: [], problems: [] };
  for (const [path, tables] of Object.entries(before.databases)) {
    result.databases += 1;
    const now = after.databases[path];
    if (!now) result.problems.push(`${path} is no longer a database`);
    else if (!pruned.includes(path)) compareTables(path, tables, now, result);
  }
  for (const [path, content] of Object.entries(before.files)) {
    result.files += 1;
    const now = after.files[path];
    if (now !== content) result.problems.push(now === undefined ? `${path} is gone` : `${path} has changed`);
  }
  return result;
}

function compareTables(path: string, before: Tables, after: Tables, result: Comparison): void {
  for (const [table, old] of Object.entries(before)) {
    result.tables += 1;
    result.rows += old.rows;
    const now = after[table];
    const where = `${path}, table ${table}`;
    if (!now) result.problems.push(`${where} is gone`);
    else if (now.rows < old.rows) result.problems.push(`${where} had ${old.rows} rows and has ${now.rows}`);
    else if (now.recent > old.recent) result.written.push(where);
    else if (now.sha256 !== old.sha256 || now.rows - now.recent !== old.rows - old.recent)
      result.problems.push(`${where} has other content than before`);
  }
}

/** @throws TaskError naming everything that is not as it was */
export async function verifyData(
  project: Project,
  { pruned }: LegacyDescription,
  before: Inventory,
  path: string,
  since: string,
): Promise<z.output<typeof comparisonSchema>> {
  const after = await takeInventory(project, path, since, before);
  const { problems, ...compared } = compareInventories(before, after, pruned);
  if (problems.length === 0) return compared;
  const list = problems.map((one) => `  - ${one}`).join('\n');
  throw new TaskError(`The data is not what it was:\n${list}`, { code: 'data-differs' });
}

// Is a fact of before readable through a running environment? Asked the way that release.toml describes, of rows that
// are in the database.

type Row = Record<string, string>;

/** How many rows were read through the environment. @throws TaskError if it has lost one */
export async function verifyReadable(
  project: Project,
  { readable }: LegacyDescription,
  data: string,
  name: EnvironmentName,
  port: number,
): Promise<number> {
  if (!readable) return 0;
  const rows = await sampleRows(project, data, readable.database, readable.query);
  const token = readable.token && variable(project, readable.token);
  const headers = { ...readable.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  for (const row of rows) {
    const body = readable.body.replace(/%(\w+)%/g, (_all, column) =>
      JSON.stringify(row[column] ?? '').slice(1, -1),
    );
    const url = `http://127.0.0.1:${port}${readable.path}`;
    const { text, status, error } = await request(
      { url },
      { method: 'POST', headers, body, timeoutMs: 10_000 },
    );
    const answer = text || String(error ?? status);
    if (answer.includes(row[readable.expect] ?? '')) continue;
    throw new TaskError(
      `Old data is not readable through ${name}: asked for ${body.trim()}\nit answered ${answer.slice(0, 500)}`,
      { code: 'not-readable' },
    );
  }
  return rows.length;
}

// The program's commands: what is in the data, a few rows of it, a volume's size, a volume's copy.

/** `known`: looks only at what that inventory has. */
export async function takeInventory(
  project: Project,
  path: string,
  since: string,
  known?: Inventory,
): Promise<Inventory> {
  const job = { mounts: [bindMount(path, '/data')], user: containerUser(project) };
  return inventorySchema.parse(await runProgram(project, 'inventory', { since, known }, job, run));
}

async function sampleRows(project: Project, path: string, database: string, query: string): Promise<Row[]> {
  const job = { mounts: [bindMount(path, '/data')], user: containerUser(project) };
  const rows = await runProgram(project, 'sample', { database, query }, job, run);
  return z.array(z.record(z.string(), z.string())).parse(rows);
}

/** Bytes, and how many files the new containers' user may not read; undefined without a base image to look with. */
export async function measureVolume(project: Project, volume: string) {
  if (!(await inspectImage(nodeImage(project)))) return undefined;
  const job = { mounts: [volumeMount(volume, '/from', 'readonly')], user: containerUser(project) };
  const schema = z.object({ bytes: z.number(), unreadable: z.array(z.string()) });
  const { bytes, unreadable } = schema.parse(await runProgram(project, 'measure', {}, job, read));
  return { bytes, unreadable: unreadable.length };
}

/** Copies a volume's files for the new containers' user, each compared by size and hash; returns how many. */
export async function copyVolume(project: Project, from: string, to: string): Promise<number> {
  const [uid, gid] = containerUser(project).split(':').map(Number);
  const job = { mounts: [volumeMount(from, '/from', 'readonly'), volumeMount(to, '/to')], user: '0:0' };
  const copied = await runProgram(project, 'copy', { owner: { uid, gid } }, job, run);
  return z.array(z.object({ sha256: z.string() })).parse(copied).length;
}

/** Copies a directory that is written to meanwhile, for the new containers' user. */
export async function snapshotData(project: Project, from: string, to: string): Promise<void> {
  const [uid, gid] = containerUser(project).split(':').map(Number);
  const job = { mounts: [bindMount(from, '/from'), bindMount(to, '/to')], user: '0:0' };
  await runProgram(project, 'snapshot', { owner: { uid, gid } }, job, run);
}

/** Removes what a killed run left running. */
export async function removeLeftovers(project: Project): Promise<void> {
  const left = await containerIds({ label: [programLabel(project)] });
  if (left.length > 0) await run(docker('rm', '--force', '--volumes', ...left));
}

/** `uid:gid` that the new service's containers run as. */
export function containerUser(project: Project): string {
  return `${variable(project, 'UID') ?? 1000}:${variable(project, 'GID') ?? 1000}`;
}

const programLabel = (project: Project) => `release-flow.migrate=${project.project.name}`;

function nodeImage(project: Project): string {
  return variable(project, 'BASE_IMAGE') ?? project.image.base_image ?? `${project.image.name}:latest`;
}

async function runProgram(
  project: Project,
  command: string,
  options: object,
  { mounts, user }: { mounts: string[]; user: string },
  execute: typeof run,
): Promise<unknown> {
  const argv = docker(
    'run',
    ...['--rm', '--interactive', '--init', '--network=none', '--read-only', '--tmpfs=/tmp'],
    `--label=${programLabel(project)}`,
    `--user=${user}`,
    ...mounts.map((mount) => `--mount=${mount}`),
    `--mount=${bindMount(join(TASKS_FOLDER, 'lib/migrate/program'), '/program')},readonly`,
    ...['--entrypoint=node', nodeImage(project), '--no-warnings', '/program/main.ts', command],
  );
  return JSON.parse(await execute(argv, { input: JSON.stringify(options) }));
}

const bindMount = (source: string, target: string) =>
  `type=bind,"source=${source.replaceAll('"', '""')}",target=${target}`;

const volumeMount = (volume: string, target: string, access = 'writable') =>
  `type=volume,source=${volume},target=${target},volume-nocopy${access === 'readonly' ? ',readonly' : ''}`;
