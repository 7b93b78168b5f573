// What the tests of backups on real containers share: the project with a backup directory of its own, containers
// that write all the while, and a look into restored directories by the image's own SQLite.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, cp, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ensureProgram } from '../programs.ts';
import { callOn, connect } from './mcp.ts';
import { docker, type Outcome, type RunOptions } from './processes.ts';
import { type TestProject, tinyProject } from './project.ts';
import { mustSwitch, releaseTiny } from './switch-support.ts';

const WRITERS = fileURLToPath(new URL('backup-writers.mjs', import.meta.url));
const execute = promisify(execFile);

export function backup(
  project: TestProject,
  argv: readonly string[],
  options: RunOptions = {},
): Promise<Outcome> {
  return project.task('backup', [...argv, '--yes', '--json'], options);
}

/** Runs it and gives its JSON; fails the test if it fails. */
// biome-ignore lint/suspicious/noExplicitAny: whatever the task reports
export async function mustBackup(project: TestProject, ...argv: string[]): Promise<any> {
  const outcome = await backup(project, argv);
  assert.equal(outcome.code, 0, outcome.stderr + outcome.stdout);
  return outcome.json();
}

export const backupsOf = (project: TestProject) => join(project.directory, 'backups');
export const dataOf = (project: TestProject) => join(project.directory, 'data');

/** Names in the backup directory that are no lock. */
export async function archivesOf(project: TestProject): Promise<string[]> {
  const names = await readdir(backupsOf(project)).catch(() => []);
  return names.filter((name) => name.endsWith('.tar.zst')).sort();
}

/** Everything in the backup directory, hidden things included, but for the lock. */
export async function everythingIn(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => !name.endsWith('.lock')).sort();
}

/** What both services mount. */
export async function mountInServices(project: TestProject, mounts: readonly string[]): Promise<void> {
  await project.edit('compose/docker-compose.yml', (text) => {
    const before = text.replace(/\n {4}volumes: .*/g, '').replace(/\nvolumes: .*\n/, '');
    const volumes = mounts.map((mount) => mount.split(':')[0]!).filter((source) => !source.startsWith('/'));
    return `${before.replace(/^ {4}restart: .*$/gm, `$&\n    volumes: ${JSON.stringify(mounts)}`)}
volumes: ${JSON.stringify(Object.fromEntries(volumes.map((name) => [name, {}])))}\n`;
  });
  await project.commit('build: mounts');
}

/** The tiny project with data, in which no service writes; prod runs. */
export async function tinyWithData(t: TestContext): Promise<TestProject> {
  const project = await tinyProject(t);
  const node = process.env.TEST_BASE_IMAGE ?? 'synapse-node:24';
  await project.edit('configs/release.toml', (text) =>
    text
      .replace('directory = "data"', `directory = "${dataOf(project)}"`)
      .replace('directory = "backups"', `directory = "${backupsOf(project)}"`),
  );
  await mountInServices(project, [`${dataOf(project)}:/app/data`]);
  await writeData(project, 'one');
  await releaseTiny(project, 'v1.0.0');
  await docker('image', 'tag', `${project.name}:v1.0.0`, `${project.name}:latest`);
  await releaseTiny(project, 'v1.0.1');
  await mustSwitch(project, 'prod', '--version', 'v1.0.0');
  await project.edit('.env', (text) => text.replace(/^TINY_BASE_IMAGE=.*$/m, `TINY_BASE_IMAGE=${node}`));
  return project;
}

/** Data that says what it is: one file, and one database with as many rows as the text has letters. */
export async function writeData(project: TestProject, text: string): Promise<void> {
  const data = dataOf(project);
  // Its content alone: a container has the directory mounted.
  await mkdir(data, { recursive: true, mode: 0o700 });
  for (const name of await readdir(data, { encoding: 'buffer' }))
    await rm(Buffer.concat([Buffer.from(`${data}/`), name]), { recursive: true });
  await python(
    `import sqlite3, sys
data, text = sys.argv[1:]
open(data + '/text', 'w').write(text)
letters = sqlite3.connect(data + '/letters.db')
letters.execute('PRAGMA journal_mode = WAL')
letters.execute('CREATE TABLE letters(a)')
letters.executemany('INSERT INTO letters VALUES (?)', [(a,) for a in text])
letters.commit()
letters.close()`,
    data,
    text,
  );
  await execute('chown', ['-R', '1000:1000', data]);
}

/** What the data says it is; both halves must agree. */
export function readData(directory: string): Promise<string> {
  return python(
    `import sqlite3, sys
data = sys.argv[1]
letters = sqlite3.connect(f'file:{data}/letters.db?mode=ro', uri=True)
letters = ''.join(a for (a,) in letters.execute('SELECT a FROM letters ORDER BY rowid'))
text = open(data + '/text').read()
print(text if letters == text else f'torn: {letters} and {text}')`,
    directory,
  );
}

/** Python's SQLite, since this machine's node may have none. */
async function python(script: string, ...argv: string[]): Promise<string> {
  const { stdout } = await execute(await ensureProgram('python3'), ['-c', script, ...argv]);
  return stdout.trim();
}

/** A monitoring URL; what was asked of it. */
export async function pinged(t: TestContext, path: string): Promise<{ asked: string[]; url: string }> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    response.end();
  });
  t.after(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { asked, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}${path}` };
}

export interface Writers {
  /** Ids that were acknowledged before a moment (ms since 1970), of both writers. */
  acknowledgedBefore: (time: number) => Promise<string[]>;
  /** Stops them; fails the test if one of them ever got an error. */
  stop: () => Promise<void>;
}

/** Two containers of the released image that move money in the project's data directory. */
export async function startWriters(t: TestContext, project: TestProject, image: string): Promise<Writers> {
  const acks = join(project.directory, 'acks');
  await mkdir(acks);
  await chmod(acks, 0o777);
  await cp(WRITERS, join(acks, 'writers.mjs'));
  const names = ['dev', 'prod'].map((one) => `${project.name}-writer-${one}`);
  t.after(() => docker('rm', '--force', ...names).catch(() => ''));
  for (const [index, name] of names.entries()) {
    const mounts = ['-v', `${dataOf(project)}:/app/data`, '-v', `${acks}:/acks`];
    const argv = ['--init', '--network=none', '--user=1000:1000', '--entrypoint=node', ...mounts, image];
    const program = ['/acks/writers.mjs', '/app/data', `w${index}`, `/acks/w${index}`];
    await docker('run', '--detach', '--name', name, ...argv, ...program);
  }
  return {
    acknowledgedBefore: async (time) => {
      const texts = await Promise.all(names.map((_, index) => readFile(join(acks, `w${index}`), 'utf8')));
      // The last line may be half-written.
      const lines = texts.flatMap((text) => text.split('\n').slice(0, -1));
      const acknowledged = lines.map((line) => line.split(' '));
      return acknowledged.filter(([, at]) => Number(at) < time).map(([id = '']) => id);
    },
    stop: async () => {
      await docker('stop', ...names);
      for (const name of names) {
        const state = await docker('inspect', '--format', '{{.State.ExitCode}}', name);
        assert.equal(state, '0', `${name}: ${(await execute('docker', ['logs', name])).stderr}`);
      }
    },
  };
}

/** What a restored directory says about the money and the facts in it. */
// biome-ignore lint/suspicious/noExplicitAny: the checker's JSON
export async function checkRestored(directory: string, image: string): Promise<any> {
  const mounts = ['-v', `${directory}:/data`, '-v', `${WRITERS}:/writers.mjs:ro`];
  const argv = ['run', '--rm', '--network=none', '--entrypoint=node', ...mounts, image];
  const text = await docker(...argv, '/writers.mjs', '/data', '--check');
  await rm(directory, { recursive: true, force: true });
  return JSON.parse(text);
}

export interface FactWriter {
  acknowledged: { key: string; at: number }[];
  stop: () => Promise<void>;
}

/** Adds facts through an environment, one after another, as an agent would. */
export async function startFacts(project: TestProject, environment: 'dev' | 'prod'): Promise<FactWriter> {
  const client = await connect(project.ports[environment]);
  const acknowledged: FactWriter['acknowledged'] = [];
  let stopped = false;
  const work = (async () => {
    for (let n = 0; !stopped; n += 1) {
      const key = `${environment}-${n}`;
      const fact = { project_id: 'backup', fact_key: key, fact_value: n };
      await callOn(client, 'sy.mem.fact.add', fact);
      acknowledged.push({ key, at: Date.now() });
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  })();
  work.catch(() => {});
  return {
    acknowledged,
    stop: async () => {
      stopped = true;
      await work;
      await client.close();
    },
  };
}
