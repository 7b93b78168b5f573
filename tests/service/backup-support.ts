// What the tests of the backup program share: a data directory that looks like a real one, the program as a
// process of its own, and a look at what it made.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { TestContext } from 'node:test';
import { BACKUP } from './programs.ts';

export const PROJECT = 'synapse';

export interface Places {
  root: string;
  /** Holds the places. */
  source: string;
  /** `source/data` */
  data: string;
  backups: string;
}

/** Two databases in WAL mode, one that is not, an empty one, files, a link; nothing is open. */
export function dataDirectory(t: TestContext, rows = 50): Places {
  const root = mkdtempSync(join(tmpdir(), 'backup-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const source = join(root, 'source');
  const data = join(source, 'data');
  const backups = join(root, 'backups');
  for (const path of [source, data, backups, join(data, 'deep'), join(data, 'empty')])
    mkdirSync(path, { mode: 0o700 });
  makeDatabase(join(data, 'memory.db'), 'wal', rows);
  makeDatabase(join(data, 'deep/index.sqlite'), 'wal', rows);
  makeDatabase(join(data, 'old.db'), 'delete', rows);
  writeFileSync(join(data, 'nothing.db'), '');
  writeFileSync(join(data, 'format.json'), '{"dataFormat": 1}\n', { mode: 0o640 });
  writeFileSync(join(data, 'deep/ünï code 😀.txt'), 'text');
  writeFileSync(join(data, `deep/${'long'.repeat(50)}.txt`), 'x'.repeat(10_000));
  symlinkSync('../memory.db', join(data, 'deep/link'));
  utimesSync(join(data, 'format.json'), 1_600_000_000.25, 1_600_000_000.25);
  return { root, source, data, backups };
}

export function makeDatabase(file: string, journalMode: 'wal' | 'delete', rows: number): void {
  const database = new DatabaseSync(file);
  database.exec(`PRAGMA journal_mode = ${journalMode}; PRAGMA synchronous = OFF`);
  database.exec('CREATE TABLE t(id INTEGER PRIMARY KEY, value TEXT); CREATE TABLE "odd ""name"(a)');
  database.exec('BEGIN');
  const insert = database.prepare('INSERT INTO t(value) VALUES (hex(randomblob(200)))');
  for (let row = 0; row < rows; row += 1) insert.run();
  database.exec('COMMIT');
  database.close();
}

// biome-ignore lint/suspicious/noExplicitAny: whatever the program printed
type Message = Record<string, any>;

export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** What it said on stderr while it worked. */
  lines: Message[];
  /** The result, or what went wrong. */
  result: Message | undefined;
  error: Message | undefined;
  stderr: string;
}

export interface Running {
  child: ChildProcess;
  ended: Promise<Outcome>;
}

function parse(text: string): Message | undefined {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** One request on stdin, which stays open: the task is there. */
export function startProgram(command: string, options: object): Running {
  const child = spawn(process.execPath, [BACKUP], { stdio: ['pipe', 'pipe', 'pipe'] });
  child.stdin.write(`${JSON.stringify({ command, options })}\n`);
  child.stdin.on('error', () => {});
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk;
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk;
  });
  const ended = new Promise<Outcome>((resolve) =>
    child.on('close', (code, signal) => {
      const lines = stderr.split('\n').flatMap((line) => parse(line) ?? []);
      const answer = parse(stdout);
      resolve({ code, signal, lines, result: answer?.result, error: answer?.error, stderr });
    }),
  );
  return { child, ended };
}

/** Runs a command to its end; never throws. */
export function program(command: string, options: object): Promise<Outcome> {
  return startProgram(command, options).ended;
}

export function createOptions({ source, backups }: Places, more: object = {}): object {
  const origin = { project: PROJECT, version: 'v1.0.0', image: 'i', imageDigest: 'd', revision: 'r' };
  const limits = { lockTimeoutMs: 5000, maxBlockMs: 5000 };
  const options = { source, places: ['data'], backups, project: PROJECT, exclude: ['lost+found'] };
  return { ...options, ...limits, origin, ...more };
}

/** Makes a proven archive; fails the test otherwise. */
export async function create(places: Places, more: object = {}): Promise<Message> {
  const { code, result, error, stderr } = await program('create', createOptions(places, more));
  assert.equal(code, 0, JSON.stringify(error) + stderr);
  return result!;
}

export async function verify(places: Places, archives: string[] | null = null): Promise<Message[]> {
  const { backups } = places;
  const { result, error } = await program('verify', { backups, project: PROJECT, archives });
  assert.ok(result, JSON.stringify(error));
  return result.verdicts;
}

export const unpackOptions = (places: Places, archive: string, name = 'restored') => ({
  ...{ archive: join(places.backups, archive), places: ['data'] },
  ...{ parent: places.root, name },
});

/** Unpacks the data of an archive beside it; returns where. */
export async function unpack(places: Places, archive: string, name = 'restored'): Promise<string> {
  const { code, error } = await program('unpack-to', unpackOptions(places, archive, name));
  assert.equal(code, 0, JSON.stringify(error));
  return join(places.root, name);
}

/** Names in the backup directory, without the lock. */
export function names(places: Places): string[] {
  return readdirSync(places.backups).filter((name) => name !== `.${PROJECT}.lock`);
}

export function rowsOf(file: string, table = 't'): number {
  const database = new DatabaseSync(file, { readOnly: true });
  try {
    return Number(database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.n);
  } finally {
    database.close();
  }
}
