// Is a fact of before readable through a running environment? Asked the way that release.toml describes, of
// rows that are in the database.
import { request } from 'node:http';
import { TaskError } from '../errors.ts';
import type { LegacyDescription } from '../migrate-schema.ts';
import { ENVIRONMENTS, type EnvironmentName, type Project, variable } from '../project.ts';
import { bindMount, containerUser, runProgram } from './container.ts';

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
