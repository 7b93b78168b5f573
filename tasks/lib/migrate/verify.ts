// Is everything there that was there? Every table of every database, every other file, and old facts through a running
// environment. The backup program reads the data and the volumes.

import { z } from 'zod';
import type { Commands } from '../backup/program/main.ts';
import { queryProgram, runProgram } from '../backup/program.ts';
import { TaskError } from '../errors.ts';
import { request } from '../http.ts';
import { type EnvironmentName, type Project, variable } from '../project.ts';
import { describedLegacy } from './detect.ts';

/** Every table of every database, and every other file by size and hash. */
export type Inventory = Awaited<ReturnType<Commands['inventory']>>;
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
    else if (now.hash !== old.hash || now.rows - now.recent !== old.rows - old.recent)
      result.problems.push(`${where} has other content than before`);
  }
}

/** @throws TaskError naming everything that is not as it was */
export async function verifyData(
  project: Project,
  pruned: readonly string[],
  before: Inventory,
  path: string,
  since: string,
): Promise<z.output<typeof comparisonSchema>> {
  const after = (await takeInventory(project, path, since, before)) ?? before;
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
  data: string,
  name: EnvironmentName,
  port: number,
): Promise<number> {
  const { readable } = describedLegacy(project);
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

// What the backup program is asked.

/** Undefined in a dry run. `known`: looks only at what that inventory has. */
export function takeInventory(project: Project, path: string, since: string, known?: Inventory) {
  const options = { since, ...(known ? { known } : {}) };
  return runProgram(project, { command: 'inventory', options, mounts: { '/data': path } });
}

async function sampleRows(project: Project, path: string, database: string, query: string): Promise<Row[]> {
  const options = { database, query };
  return (await runProgram(project, { command: 'sample', options, mounts: { '/data': path } })) ?? [];
}

/** Bytes, and how many files the new containers' user may not read. */
export function measureVolume(project: Project, volume: string) {
  const options = { user: containerUser(project) };
  return queryProgram(project, { command: 'measure', options, mounts: { '/from': `${volume}:ro` } });
}

/** Copies a directory, which may be in use, or a volume, for the new containers' user. */
export async function copyFor(project: Project, from: string, to: string): Promise<void> {
  const options = { owner: containerUser(project) };
  await runProgram(project, { command: 'copy', options, mounts: { '/from': from, '/to': to } });
}

/** Whom the new service's containers run as. */
export function containerUser(project: Project): { uid: number; gid: number } {
  const [uid, gid] = [variable(project, 'UID'), variable(project, 'GID')];
  return { uid: Number(uid ?? 1000), gid: Number(gid ?? 1000) };
}
