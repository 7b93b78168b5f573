// Before and after, compared: every table of every database that was there, every other file. Pure.
import { request } from 'node:http';
import { TaskError } from '../errors.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project, variable } from '../project.ts';
import type { LegacyDescription } from '../project-schema.ts';
import { bindMount, containerUser, type Inventory, runProgram, type TableState } from './detect.ts';

interface Comparison {
  databases: number;
  tables: number;
  rows: number;
  files: number;
  /** Tables that clients have written to since the new service started: the hash leaves out what is new. */
  written: string[];
  problems: string[];
}

/** `pruned`: databases of which the new service removes what is old. */
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

function compareTables(
  path: string,
  before: Record<string, TableState>,
  after: Record<string, TableState>,
  result: Comparison,
): void {
  for (const [table, old] of Object.entries(before)) {
    result.tables += 1;
    result.rows += old.rows;
    const now = after[table];
    const where = `${path}, table ${table}`;
    if (!now) result.problems.push(`${where} is gone`);
    else if (now.rows < old.rows) result.problems.push(`${where} had ${old.rows} rows and has ${now.rows}`);
    else if (now.sha256 === old.sha256 && now.rows - now.recent === old.rows - old.recent) {
      if (now.recent > old.recent) result.written.push(where);
    } else if (now.recent > old.recent) result.written.push(where);
    else result.problems.push(`${where} has other content than before`);
  }
}

// Is a fact of before readable through a running environment? Asked the way that release.toml describes, of
// rows that are in the database.

type Readable = NonNullable<LegacyDescription['readable']>;
type Row = Record<string, string>;

/** How many rows were read through each environment. @throws TaskError naming the one that has lost them */
export async function verifyReadable(
  project: Project,
  readable: Readable,
  data: string,
  ports: Record<EnvironmentName, number>,
): Promise<number> {
  const options = { database: readable.database, query: readable.query };
  const user = containerUser(project);
  const mounts = [bindMount(data, '/data', 'writable')];
  const rows = (await runProgram<Row[]>(project, { command: 'sample', options, mounts, user })) ?? [];
  for (const row of rows) {
    for (const name of ENVIRONMENTS) await verifyRow(project, readable, { name, port: ports[name] }, row);
  }
  return rows.length;
}

async function verifyRow(
  project: Project,
  readable: Readable,
  { name, port }: { name: EnvironmentName; port: number },
  row: Row,
): Promise<void> {
  const body = readable.body.replace(/%(\w+)%/g, (_all, column) =>
    JSON.stringify(row[column] ?? '').slice(1, -1),
  );
  const token = readable.token && variable(project, readable.token);
  const headers = { ...readable.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  const answer = await post(`http://127.0.0.1:${port}${readable.path}`, headers, body);
  if (answer.includes(row[readable.expect] ?? '')) return;
  throw new TaskError(
    `Old data is not readable through ${name}: asked for ${body.trim()}\nit answered ${answer.slice(0, 500)}`,
    {
      code: 'not-readable',
    },
  );
}

function post(url: string, headers: Record<string, string>, body: string): Promise<string> {
  return new Promise((resolve) => {
    const outgoing = request(url, { method: 'POST', headers, agent: false, timeout: 10_000 }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve(text)).on('error', (error) => resolve(String(error)));
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer within 10 s')));
    outgoing.on('error', (error) => resolve(String(error)));
    outgoing.end(body);
  });
}
